"""Deadlines of containers: one timer for all of them, moved only when an earlier one comes.

The hot path sets and clears a container's deadline for every input; that must cost a comparison, not a
timer.
"""

import asyncio
from math import inf
from typing import Protocol


class Watched(Protocol):
    """Something with a deadline, in the loop's time; `inf` for none."""

    deadline: float

    def on_deadline(self) -> None:
        """Act; called when the deadline has passed. It must move it."""


class Deadlines:
    """Calls `on_deadline` of everything watched soon after its deadline."""

    def __init__(self) -> None:
        self._watched: dict[Watched, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.next = inf  # when the timer fires

    def watch(self, one: Watched) -> None:
        """Look after the deadline of something from now on."""
        self._watched[one] = None
        self.hint(one.deadline)

    def forget(self, one: Watched) -> None:
        """No longer look after it."""
        self._watched.pop(one, None)

    def hint(self, deadline: float) -> None:
        """Take note that a deadline was set."""
        if deadline < self.next:
            self._arm(deadline)

    def close(self) -> None:
        """Call nobody any more."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.next = at
        self._timer = asyncio.get_running_loop().call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer, self.next = None, inf
        now = asyncio.get_running_loop().time()
        for one in list(self._watched):
            if one.deadline <= now:
                one.on_deadline()
        earliest = min((one.deadline for one in self._watched), default=inf)
        if earliest < inf:
            self.hint(max(earliest, now + 0.001))
