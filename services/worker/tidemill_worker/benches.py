"""Where environments are made: in the same few folders again and again.

    <folder>/<interpreter>/skeleton/            an environment without packages, made once
    <folder>/<interpreter>/<number>/            a bench, and what lies on it
    <folder>/<interpreter>/<number>/environment being made, renamed when it is whole

uv asks an interpreter what it is once for each path, which takes longer than to install a few packages, so
paths are used again. The lock of a bench is held by the worker and by every program that works on it: a
program that outlives its worker keeps the bench, and nobody builds on top of what it still writes.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tidemill_worker.uses import Uses

SKELETON = "skeleton"


@dataclass(frozen=True, slots=True)
class Bench:
    """A bench, the descriptor that holds its lock, and the skeleton for its interpreter."""

    folder: Path
    lock: int
    skeleton: Path

    @property
    def environment(self) -> Path:
        """Where the environment is made."""
        return self.folder / "environment"


class Benches:
    """The benches below one folder, which several workers may share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks = Uses(folder / ".locks")
        self._sweep()

    @asynccontextmanager
    async def one(self, interpreter: str) -> AsyncIterator[Bench]:
        """Have an empty bench for an interpreter, named by its path, alone."""
        name = hashlib.sha256(interpreter.encode()).hexdigest()[:12]
        number, lock = self._take(name)
        folder = self._folder / name / str(number)
        try:
            await asyncio.to_thread(_clear, folder)
            await asyncio.to_thread(folder.mkdir, parents=True)
            yield Bench(folder, lock, self._folder / name / SKELETON)
        finally:
            await asyncio.to_thread(_clear, folder)
            os.close(lock)

    def _take(self, name: str) -> tuple[int, int]:
        """Return the first bench that is free, and its lock."""
        for number in count():
            if (lock := self._locks.take(f"{name}-{number}")) is not None:
                return number, lock
        raise AssertionError

    def _sweep(self) -> None:
        """Clear what nobody works on any more."""
        for left in self._folder.glob("[!.]*/[0-9]*"):
            if (lock := self._locks.take(f"{left.parent.name}-{left.name}")) is not None:
                _clear(left)
                os.close(lock)


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
