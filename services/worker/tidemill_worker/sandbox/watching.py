"""What is told of containers that run: which processes the kernel ended, whether their disk is full.

What nothing enforces is measured every second, and ends a container that went beyond it: where control groups
cannot be written the memory of its processes, what two of them share counting twice; where it has no disk of
its own the files in the upper layer of its root, of which no single one can be too large.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidemill_worker.children import children_of
from tidemill_worker.sandbox.cgroups import Cgroups
from tidemill_worker.tier import Report

EVERY = 1.0  # seconds between two looks
SHARE = 20  # times the processor time that the last look took, at least, until the next
FULL = 1 << 20  # bytes that are left of a disk in which nothing large has room any more
_MIB = 1 << 20
_OWN = ("RssAnon:", "RssShmem:")  # not what is read from files, which goes when memory is short


@dataclass(slots=True)
class Watched:
    """One container: its first process, its limits in MiB, and how far it went.

    memory: None for no limit. written: a folder of the worker's, or the mount of a disk of its own.
    """

    pid: int
    memory: int | None
    disk: int
    written: Path | int
    peak: int = 0  # bytes of memory
    is_full: bool = False
    kills: int = 0
    due: float = 0.0


class Watch:
    """Looks at the containers of a worker."""

    def __init__(self, cgroups: Cgroups, measure: Callable[[Path], Awaitable[tuple[int, float]]]) -> None:
        """`measure` returns the bytes that a folder takes on its disk, and the processor time of counting."""
        self._cgroups = cgroups
        self._measure = measure
        self._watched: dict[str, Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, container: str, watched: Watched) -> None:
        """Look at a container from now on."""
        self._watched[container] = watched

    def discard(self, container: str) -> None:
        """Look at it no more."""
        self._watched.pop(container, None)

    def start(self, report: Report) -> None:
        """Look, and tell what is seen."""
        self._task = asyncio.create_task(self._run(report), name="watch limits")

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, report: Report) -> None:
        while True:
            await asyncio.sleep(EVERY)
            for container, watched in list(self._watched.items()):
                if self._cgroups.version:
                    self._look_at_kills(container, watched, report)
                elif watched.memory is not None:
                    self._look_at_memory(container, watched, watched.memory, report)
                if isinstance(watched.written, Path):
                    await self._look_at_folder(container, watched, watched.written, report)
                else:
                    self._look_at_disk(container, watched, watched.written, report)

    def _look_at_kills(self, container: str, watched: Watched, report: Report) -> None:
        memory = self._cgroups.memory(container)
        if memory is not None and memory.kills > watched.kills:
            watched.kills = memory.kills
            limit = memory.limit // _MIB
            report(container, f"a process was killed at the container's memory limit of {limit} MiB", False)

    def _look_at_memory(self, container: str, watched: Watched, limit: int, report: Report) -> None:
        watched.peak = max(watched.peak, memory(watched.pid))
        if watched.peak > limit * _MIB:
            peak = -(-watched.peak // _MIB)
            report(container, f"was killed at its memory limit of {limit} MiB (peak {peak} MiB)", True)

    def _look_at_disk(self, container: str, watched: Watched, mount: int, report: Report) -> None:
        has = os.fstatvfs(mount)
        was_full, watched.is_full = watched.is_full, has.f_bavail * has.f_frsize < FULL
        if watched.is_full and not was_full:
            report(container, f"its ephemeral disk of {watched.disk} MiB is full", False)

    async def _look_at_folder(self, container: str, watched: Watched, upper: Path, report: Report) -> None:
        if time.monotonic() < watched.due:
            return
        used, seconds = await self._measure(upper)
        watched.due = time.monotonic() + seconds * SHARE
        if used > watched.disk * _MIB:
            told = f"wrote {used // _MIB} MiB, more than its ephemeral disk of {watched.disk} MiB"
            report(container, told, True)


def memory(pid: int) -> int:
    """Return the bytes of memory that a process and its descendants have for themselves."""
    total, left = 0, [pid]
    while left:
        process = left.pop()
        left += children_of(process)
        with suppress(OSError):  # it ended meanwhile
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith(_OWN):
                    total += int(line.split()[1]) << 10
    return total
