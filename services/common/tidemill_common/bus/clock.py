"""The time of the in-memory bus: the real one, or one that a test moves."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol


class Alarm(Protocol):
    """Something that will be called at its time."""

    def cancel(self) -> None:
        """Do not call it."""


class Clock(Protocol):
    """Unix time, and calls at a time."""

    def time(self) -> float:
        """Return the unix time."""

    def call_at(self, when: float, call: Callable[[], None]) -> Alarm:
        """Run `call` on the loop when it is `when`."""


class RealClock:
    """The machine's time."""

    def time(self) -> float:
        """See `Clock.time`."""
        return time.time()

    def call_at(self, when: float, call: Callable[[], None]) -> Alarm:
        """See `Clock.call_at`."""
        return asyncio.get_running_loop().call_later(max(0.0, when - self.time()), call)


class _Entry:
    """A call that a moved clock owes."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class MovedClock:
    """A time that stands still until it is moved."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._order = itertools.count()
        self._entries: list[tuple[float, int, _Entry]] = []

    def time(self) -> float:
        """See `Clock.time`."""
        return self._now

    def call_at(self, when: float, call: Callable[[], None]) -> Alarm:
        """See `Clock.call_at`."""
        entry = _Entry(call)
        heapq.heappush(self._entries, (when, next(self._order), entry))
        return entry

    def advance(self, seconds: float) -> None:
        """Move on by some seconds, running what falls due on the way, each at its time."""
        end = self._now + seconds
        while self._entries and self._entries[0][0] <= end:
            when, _, entry = heapq.heappop(self._entries)
            self._now = max(self._now, when)
            if entry.call is not None:
                entry.call()
        self._now = end
