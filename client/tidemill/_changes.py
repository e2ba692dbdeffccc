"""Files that change on disk: the bell for `tidemill serve`.

A file is watched through its folder, because editors put a new file in the place of the old one. Folders
are watched with all that lies below them, without caches and what editors write for themselves.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

RETRY = 1.0  # seconds until a folder that cannot be watched, as it has gone, is tried again

_log = logging.getLogger("tidemill")
Filter = Callable[[Change, str], bool]


class Changes:
    """What has changed since it was asked for last. Changes are collected while nobody asks."""

    def __init__(self) -> None:
        self._found: set[Path] = set()
        self._bell = asyncio.Event()
        self._followed: frozenset[Path] = frozenset()
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, paths: Collection[Path], since: float) -> None:
        """Watch these files and folders instead of the earlier ones.

        What changed before, but after the unix time `since`, counts as well.
        """
        wanted = frozenset(map(_real, paths))
        if wanted != self._followed:
            await self.close()
            self._followed = wanted
            self._begin(wanted)
            await asyncio.sleep(0)  # the watches begin: what changes from here on they tell
        self._collect(path for path in wanted if _modified(path) > since)

    def _begin(self, wanted: frozenset[Path]) -> None:
        folders = {path for path in wanted if path.is_dir()}
        files = {str(path) for path in wanted - folders}
        if folders:
            self._start(folders, DefaultFilter(), recursive=True)
        if files:
            parents = {Path(file).parent for file in files}
            self._start(parents, lambda _change, path: path in files, recursive=False)

    def _start(self, folders: set[Path], wanted: Filter, *, recursive: bool) -> None:
        self._tasks.append(asyncio.create_task(self._watch(folders, wanted, recursive=recursive)))

    async def _watch(self, folders: set[Path], wanted: Filter, *, recursive: bool) -> None:
        poll: bool | None = None  # as the system and WATCHFILES_FORCE_POLLING say
        while True:
            watch = partial(awatch, *folders, watch_filter=wanted, recursive=recursive)
            try:
                async for changes in watch(force_polling=poll):
                    self._collect(Path(path) for _, path in changes)
            except FileNotFoundError:
                await asyncio.sleep(RETRY)
            except OSError as error:  # more files than the system notifies of
                if poll:
                    raise
                _log.warning("files are looked at again and again, as they cannot be watched: %s", error)
                poll = True

    def _collect(self, paths: Iterable[Path]) -> None:
        self._found.update(paths)
        if self._found:
            self._bell.set()

    async def next(self) -> set[Path]:
        """Return what has changed, as soon as something has."""
        await self._bell.wait()
        self._bell.clear()
        found, self._found = self._found, set()
        return found

    async def close(self) -> None:
        """Watch nothing more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


def _real(path: Path) -> Path:
    return path.resolve()


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
