"""Outputs of one call on their way to the one who iterates: put in order, fetched, handed over.

What waits here is bounded: by the window of inputs that a map sends, and by a budget of bytes for payloads
that are fetched from the object store before anybody has taken them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tidemill._channel import Channel
from tidemill._outcome import End, Failed, Outcome

if TYPE_CHECKING:
    from tidemill._caller import Caller

FETCHED_BYTES = 256 << 20  # of payloads that are fetched, or being fetched, and not taken


class _Fetch:
    """An output whose payload lies in the object store."""

    __slots__ = ("data", "end", "form", "started", "status")

    def __init__(self, status: int, form: int, data: list[Any]) -> None:
        self.status = status
        self.form = form
        self.data = data
        self.started = False
        self.end: End | None = None

    @property
    def size(self) -> int:
        return int(self.data[2])  # `Blob.size`


class Results:
    """Takes outputs by index, gives them to a channel: in order from 0, or as they come."""

    def __init__(self, caller: "Caller", channel: Channel[End], *, ordered: bool, restricted: bool) -> None:
        self._caller = caller
        self._channel = channel
        self._ordered = ordered
        self._restricted = restricted
        self._held: dict[int, Outcome | _Fetch] = {}  # arrived before their turn
        self._line: deque[Outcome | _Fetch] = deque()  # their turn has come, or order does not matter
        self._batch: list[End] = []
        self._fetched: deque[tuple[int, int]] = deque()  # (position in the channel, bytes)
        self._fetching_bytes = 0
        self._put = 0
        self._bytes = 0
        self.next = 0  # index whose turn it is
        self.added = 0
        self.on_delivered: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> int:
        """Return how many outputs have arrived and were not taken."""
        return self.added - self._channel.taken

    @property
    def gap(self) -> bool:
        """Return whether outputs wait for one that has not arrived."""
        return bool(self._held)

    @property
    def stalled(self) -> bool:
        """Return whether outputs wait until something was taken."""
        return bool(self._line)

    @property
    def mean_bytes(self) -> float:
        """Return the mean size of an output, as it waits here."""
        return self._bytes / self.added if self.added else 0.0

    @property
    def delivered(self) -> bool:
        """Return whether everything that arrived is in the channel."""
        return not self._held and not self._line and not self._batch

    def has(self, index: int) -> bool:
        """Return whether the output of an index has arrived (in order only)."""
        return index < self.next or index in self._held

    def add(self, index: int, status: int, form: int, data: Any) -> None:
        """Take one output; `flush` follows when the message is done."""
        self.added += 1
        item: Outcome | _Fetch
        if type(data) is bytes:
            self._bytes += len(data)
            item = Outcome(status, form, data, self._restricted)
        else:
            item = _Fetch(status, form, data)
        if not self._ordered:
            self._release(item)
        elif index != self.next:
            self._held[index] = item
        else:
            self._release(item)
            self.next += 1
            while self._held and (following := self._held.pop(self.next, None)) is not None:
                self._release(following)
                self.next += 1

    def _release(self, item: "Outcome | _Fetch") -> None:
        if type(item) is Outcome and not (self._ordered and self._line):
            self._batch.append(item)
        else:
            self._line.append(item)

    def flush(self) -> None:
        """Hand over what can be."""
        if self._line:
            self._advance()
        batch = self._batch
        if batch:
            self._batch = []
            self._put += len(batch)
            self._channel.put(batch)
            self.on_delivered()

    # --- payloads in the object store

    def _advance(self) -> None:
        """Start fetches within the budget, and move to the batch what has arrived and may go."""
        while self._fetched and self._fetched[0][0] <= self._channel.taken:
            self._fetching_bytes -= self._fetched.popleft()[1]
        for item in self._line:
            if isinstance(item, _Fetch) and not item.started:
                if self._fetching_bytes and self._fetching_bytes + item.size > FETCHED_BYTES:
                    break
                item.started = True
                self._fetching_bytes += item.size
                self._caller.run(self._fetch(item), name="fetch a result")
        if self._ordered:
            while self._line and self._move(self._line[0]):
                self._line.popleft()
        else:
            self._line = deque(item for item in self._line if not self._move(item))

    def _move(self, item: "Outcome | _Fetch") -> bool:
        if isinstance(item, Outcome):
            self._batch.append(item)
            return True
        if item.end is None:
            return False
        self._batch.append(item.end)
        self._fetched.append((self._put + len(self._batch), item.size))
        return True

    async def _fetch(self, item: _Fetch) -> None:
        try:
            outcome = await self._caller.outcome(item.status, item.form, item.data)
            item.end = outcome._replace(restricted=self._restricted)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            item.end = Failed(error)
        self.flush()
