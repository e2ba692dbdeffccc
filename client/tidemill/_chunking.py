"""How many inputs of a map travel in one message. Pure: no clock, no bus.

A message costs about a tenth of a millisecond whatever it carries, so trivial inputs should share one;
but the inputs of a message run one after the other, so slow ones should not. What the inputs cost is not
known before the first outputs: a map begins with single inputs and learns from the seconds that come
with each message of outputs.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from tidemill._wire.payload import MESSAGE_LIMIT

MAX_INPUTS = 256  # in one chunk
MAX_CHUNK_BYTES = MESSAGE_LIMIT  # of payload in one chunk; a single input may have more
TARGET_SECONDS = 0.010  # of work in a chunk: half of the 20 ms that the tail of a map may wait for one

MAX_OUTSTANDING = 1_024  # chunks: what a thousand slots of slow functions need
MAX_OUTSTANDING_INPUTS = 16_384  # 64 chunks of 256: some for each slot while others travel

FIRST = 64  # single inputs before anything is known; doubled after each WIDEN seconds of silence
WIDEN = 0.1

SAMPLES = 16  # messages of outputs that the estimate looks back on: the slow first one of a container fades
REMEMBER = 64  # messages of outputs after which a container that is not heard of is forgotten


@dataclass(slots=True)
class Pace:
    """What a map has learnt about its function."""

    limit: int = 1  # inputs of the next chunk: doubled with each message of outputs, up to what fits
    _fitting: int = 1
    _samples: "deque[tuple[int, float]]" = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _seen: dict[str, int] = field(default_factory=dict)
    _messages: int = 0

    @property
    def known(self) -> bool:
        """Return whether any output has come."""
        return bool(self._samples)

    @property
    def slots(self) -> int:
        """Return how many containers are known to work on this map, at least one."""
        return max(1, len(self._seen))

    @property
    def seconds(self) -> float:
        """Return the mean seconds of one input, weighted by inputs over the last messages."""
        inputs = sum(count for count, _ in self._samples)
        return sum(seconds for _, seconds in self._samples) / inputs if inputs else 0.0

    def observe(self, inputs: int, seconds: float, container: str) -> None:
        """Take in one message of outputs: so many inputs took so many seconds in that container."""
        self._messages += 1
        self._samples.append((inputs, max(0.0, seconds)))
        self._seen[container] = self._messages
        if self._messages % REMEMBER == 0:
            oldest = self._messages - REMEMBER
            self._seen = {name: number for name, number in self._seen.items() if number > oldest}
        fitting = int(TARGET_SECONDS / max(self.seconds, TARGET_SECONDS / MAX_INPUTS))
        self._fitting = max(1, min(MAX_INPUTS, fitting))
        self.limit = min(self.limit * 2, self._fitting)

    def size(self, ready: int, outstanding: int, *, exhausted: bool, silent: float = 0.0) -> int:
        """Return how many of the `ready` inputs go into the next chunk; 0 is to wait.

        `outstanding` chunks are under way, `exhausted` says that no more inputs will come, `silent` is
        how long the map has waited for its first output (seconds).
        """
        if ready <= 0:
            return 0
        if not self._samples:
            return 1 if outstanding < first_window(silent) else 0
        if outstanding >= self._window():
            return 0
        if ready < self.limit and not exhausted and outstanding >= 2 * self.slots:
            return 0  # every slot has work and some waits: let a chunk fill
        return min(self.limit, max(1, math.ceil(ready / self.slots)))

    def _window(self) -> int:
        """Return how many chunks may be outstanding: few while the next ones will be larger."""
        if self.limit < self._fitting:
            return FIRST
        return min(MAX_OUTSTANDING, MAX_OUTSTANDING_INPUTS // self.limit)


def first_window(silent: float) -> int:
    """Return how many single inputs may be outstanding before the first output.

    Slow functions and cold starts look the same; for the former every slot there may be should get one.
    """
    return int(min(MAX_OUTSTANDING, FIRST << int(min(silent, 10.0) / WIDEN)))


MAX_HELD = 65_536  # inputs in flight and outputs that nobody has taken
MAX_HELD_BYTES = 256 << 20  # of outputs that nobody has taken, those still in flight included


def has_room(in_flight: int, waiting: int, mean_bytes: float) -> bool:
    """Return whether more inputs may be sent: memory must not grow with the length of the map."""
    held = in_flight + waiting
    return held < MAX_HELD and held * mean_bytes < MAX_HELD_BYTES
