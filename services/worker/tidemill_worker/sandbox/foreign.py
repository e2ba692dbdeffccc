"""Files that containers wrote under their own ids: measured and removed by whoever may.

Root may, and who shares its only id with its containers. Another user may as root of a user namespace that
maps those ids: a program of ours enters one, to remove a tree, or to stay and measure.
"""

import asyncio
import json
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from tidemill_worker.children import Children
from tidemill_worker.sandbox import launcher
from tidemill_worker.sandbox.ids import Ids

PATIENCE = 60.0  # seconds to measure one tree
UNKNOWN = 1.0  # seconds that count as what it took where nobody knows


class ForeignFiles:
    """The files of one worker's containers. `layer` is where the launcher finds what it imports."""

    def __init__(self, children: Children, ids: Ids, layer: Path) -> None:
        self._children = children
        self._is_ours = ids.owns_files
        self._ids = json.dumps({"first": ids.first, "first_group": ids.first_group})
        self._layer = layer
        self._measuring: asyncio.subprocess.Process | None = None

    async def remove(self, path: Path) -> None:
        """Remove a tree."""
        if self._is_ours:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
            return
        process = await self._start("--remove", self._ids, str(path))
        await process.wait()
        self._children.own.discard(process.pid)

    async def size(self, path: Path) -> tuple[int, float]:
        """Return the bytes that a tree takes on its disk, 0 if nobody knows, and what it took to count them.

        The latter in seconds of processor time. One tree is measured at a time.
        """
        if self._is_ours:
            return await asyncio.to_thread(_measured, path)
        if self._measuring is None:
            self._measuring = await self._start("--measure", self._ids, answers=True)
        process = self._measuring
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                process.stdin.write(f"{path}\n".encode())
                used, seconds = (await process.stdout.readline()).split()
                return int(used), float(seconds)
        await self.close()  # another one is asked next time
        return 0, UNKNOWN

    async def close(self) -> None:
        """End the program that measures."""
        process, self._measuring = self._measuring, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            self._children.own.discard(process.pid)

    async def _start(self, *arguments: str, answers: bool = False) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE if answers else asyncio.subprocess.DEVNULL
        async with self._children.starting():
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", launcher.__file__, self._layer, *arguments,
                stdin=pipe,
                stdout=pipe,
            )  # fmt: skip
            self._children.own.add(process.pid)
        return process


def _measured(path: Path) -> tuple[int, float]:
    began = time.thread_time()
    return launcher.size(str(path)), time.thread_time() - began
