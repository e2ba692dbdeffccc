"""What is told of containers that run: which processes the kernel ended, whether their disk is full.

Where containers have no disks of their own, the upper layers of their roots lie on the worker's and are
measured every second: a container can go beyond its limit for as long; a single file cannot at all.
"""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidemill_worker.sandbox.cgroups import Cgroups
from tidemill_worker.tier import Report

EVERY = 1.0  # seconds between two looks
SHARE = 20  # times as long as the last look took, at least, until the next
FULL = 1 << 20  # bytes that are left of a disk in which nothing large has room any more
_MIB = 1 << 20


@dataclass(slots=True)
class _Watched:
    written: Path | int  # where it writes: a folder of the worker's, or the mount of its own disk
    disk: int  # MiB
    is_full: bool = False
    kills: int = 0
    due: float = 0.0


class Watch:
    """Looks at the containers of a worker."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        self._watched: dict[str, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, container: str, written: Path | int, disk: int) -> None:
        """Look at a container from now on."""
        self._watched[container] = _Watched(written, disk)

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
                self._look_at_memory(container, watched, report)
                if isinstance(watched.written, Path):
                    await self._look_at_folder(container, watched, watched.written, report)
                else:
                    self._look_at_disk(container, watched, watched.written, report)

    def _look_at_memory(self, container: str, watched: _Watched, report: Report) -> None:
        memory = self._cgroups.memory(container)
        if memory is not None and memory.kills > watched.kills:
            watched.kills = memory.kills
            limit = memory.limit // _MIB
            report(container, f"a process was killed at the container's memory limit of {limit} MiB", False)

    def _look_at_disk(self, container: str, watched: _Watched, mount: int, report: Report) -> None:
        has = os.fstatvfs(mount)
        was_full, watched.is_full = watched.is_full, has.f_bavail * has.f_frsize < FULL
        if watched.is_full and not was_full:
            report(container, f"its ephemeral disk of {watched.disk} MiB is full", False)

    async def _look_at_folder(self, container: str, watched: _Watched, upper: Path, report: Report) -> None:
        began = time.monotonic()
        if began < watched.due:
            return
        used = await asyncio.to_thread(size, upper)
        now = time.monotonic()
        watched.due = now + (now - began) * SHARE
        if used > watched.disk * _MIB:
            told = f"it wrote {used // _MIB} MiB, more than its ephemeral disk of {watched.disk} MiB"
            report(container, told, True)


def size(folder: Path) -> int:
    """Return the bytes that a tree takes on its disk. What disappears meanwhile does not count."""
    total, left = 0, [str(folder)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except OSError:
            continue
    return total
