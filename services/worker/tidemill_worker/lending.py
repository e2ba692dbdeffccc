"""Containers that wait for calls of their own lend their cores.

A function that calls functions waits with its cores promised and unused. Where every core is held by such a
wait, the calls that it waits for would find no room, for ever. So a container whose input has called
something, and which has used next to no processor time since the last look, gives its cores to the others;
it takes them back, promised or not, as soon as it works again. Memory and GPUs stay its own, and bound how
deep functions can call each other.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from tidemill_worker.capacity import Room

LOOK = 0.25  # seconds between two looks
IDLE = 0.02  # seconds of processor time in between that count as none: two of the kernel's ticks
TICK = 0.01  # seconds of processor time in one of them


class Waiter(Protocol):
    """A container, as far as it matters here."""

    pid: int

    @property
    def may_wait(self) -> bool:
        """Whether its running input has called a function."""


class Lending:
    """Looks which containers wait, and lends their cores."""

    def __init__(
        self,
        room: Room,
        present: Callable[[], Mapping[str, Waiter]],
        changed: Callable[[], None],
        used: Callable[[int], float | None] | None = None,
    ) -> None:
        """`used` gives the processor time of a process and all that descends from it."""
        self._room = room
        self._present = present
        self._changed = changed
        self._used = used or processor_seconds
        self._seen: dict[str, float] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK)
            self.look()

    def look(self) -> None:
        """Lend the cores of those that wait, take back those of all others."""
        present = self._present()
        waiting = {name: one for name, one in present.items() if one.may_wait}
        seen, self._seen = self._seen, {}
        lending = set()
        for name, container in waiting.items():
            used = self._used(container.pid)
            if used is not None:
                self._seen[name] = used
                if name in seen and used - seen[name] <= IDLE:
                    lending.add(name)
        if self._room.lend(lending):
            self._changed()


def processor_seconds(root: int) -> float | None:
    """Return the processor time of a process and its living descendants; None where nobody can tell."""
    total, found = 0.0, [root]
    for pid in found:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) * TICK
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            if pid == root:
                return None
    return total
