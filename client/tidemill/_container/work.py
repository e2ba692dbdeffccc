"""The chunks that a runner holds, and which of their inputs have not started."""

from collections import deque
from typing import NamedTuple

from tidemill._container.outbox import Encoded
from tidemill._container.sockets import Frame
from tidemill._runtime import CurrentInput
from tidemill._wire.ids import input_id
from tidemill._wire.messages import NO_PICKLE

NOTHING = (-1, -1)  # the key of no input


class Task(NamedTuple):
    """One input that is about to run."""

    key: tuple[int, int]  # chunk, index
    now: CurrentInput
    payload: Encoded
    collect: bool  # what it yields is wanted as a list
    method: str


class Chunk:
    """Inputs of one call. The reading thread takes back what the main thread has not started.

    Both do so by single operations on one deque, which need no lock.
    """

    __slots__ = ("_call", "_collect", "_indices", "_payloads", "_root", "method", "number", "waiting")

    def __init__(self, frame: Frame) -> None:
        """Read the arguments of a CHUNK frame."""
        self.number, self._call, self._indices, _attempt, self._payloads, _parent, root, collect = frame[1:9]
        self.method: str = frame[9]
        self._root = root or self._call
        self._collect = bool(collect)
        self.waiting = deque(range(len(self._indices)))

    def start(self) -> Task | None:
        """Take the next input, or None when nothing of this chunk waits any more."""
        try:
            position = self.waiting.popleft()
        except IndexError:
            return None
        index, call = self._indices[position], self._call
        payload = self._payloads[position]
        now = CurrentInput(call, index, input_id(call, index), self._root, payload[0] in NO_PICKLE)
        return Task((self.number, index), now, payload, self._collect, self.method)

    def following(self) -> tuple[int, int]:
        """Return the key of the input that is started next, or (-1, -1)."""
        try:
            return self.number, self._indices[self.waiting[0]]
        except IndexError:
            return NOTHING

    def recall(self) -> list[int]:
        """Take back everything that has not started; return the indices."""
        taken = []
        while True:
            try:
                taken.append(self._indices[self.waiting.popleft()])
            except IndexError:
                return taken

    def withdraw(self, index: int) -> bool:
        """Take back one input; return whether it had not started."""
        try:
            self.waiting.remove(self._indices.index(index))
        except (ValueError, IndexError):
            return False
        return True
