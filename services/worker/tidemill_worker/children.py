"""The processes of this worker: which are its own, and what is left of containers whose init is gone.

The worker is a subreaper: when an init is killed, what it looked after becomes a child of the worker.
Every child that the worker did not start itself is such an orphan, and is ended with all its descendants.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tidemill._container.processes import descendants

_SWEEPS = 50  # rounds of killing before the rest is left to the next sweep
_REAP_TRIES = 100  # for an init that has said goodbye to be gone
_PAUSE = 0.01  # seconds between two of either


@dataclass(slots=True)
class Children:
    """The children that this worker knows. Whoever starts one does so inside `starting()`."""

    own: set[int] = field(default_factory=set)
    awaited: set[int] = field(default_factory=set)  # those of them that somebody here waits for
    _starting: int = 0
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)
    _sweeping: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._quiet.set()

    @asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """Hold sweeps off while a process is being started and not yet in `own`."""
        async with self._sweeping:
            self._starting += 1
            self._quiet.clear()
        try:
            yield
        finally:
            self._starting -= 1
            if not self._starting:
                self._quiet.set()

    async def forget(self, pid: int) -> None:
        """Forget an init; collect it if its template is gone, so that it has become a child of ours."""
        if pid in self.awaited:
            return
        self.own.discard(pid)
        with suppress(ChildProcessError):
            for _ in range(_REAP_TRIES):
                if os.waitpid(pid, os.WNOHANG)[0]:  # noqa: ASYNC222 - it returns at once
                    return
                await asyncio.sleep(_PAUSE)

    async def sweep(self) -> int:
        """End every orphan; return how many there were."""
        ended = 0
        async with self._sweeping:
            await self._quiet.wait()
            for _ in range(_SWEEPS):
                orphans = [pid for pid in children_of(os.getpid()) if pid not in self.own]
                if not orphans:
                    break
                for pid in orphans:
                    ended += _end(pid)
                await asyncio.sleep(_PAUSE)
        return ended


def _end(orphan: int) -> int:
    """Kill an orphan with its descendants, from the leaves up, and reap it if it is dead."""
    ended = 0
    for pid in (*reversed(descendants(orphan)), orphan):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            ended += 1
    with suppress(ChildProcessError):
        os.waitpid(orphan, os.WNOHANG)
    return ended


def children_of(pid: int) -> list[int]:
    """Return the children of a process, of all its threads; empty where /proc does not tell."""
    children: list[int] = []
    tasks = Path(f"/proc/{pid}/task")
    with suppress(OSError):  # it ended meanwhile
        for task in os.listdir(tasks):  # noqa: PTH208 - three times as fast as iterdir
            children.extend(map(int, (tasks / task / "children").read_text().split()))
    return children
