"""What was made and is not on the disk for certain yet, so that a build need not wait for the disk.

    <folder>/<name>.<pid> -> <boot>     a link for each: it is there before what it names

A killed process loses nothing of what it wrote, a machine that goes down does. File systems keep the order
of names: what has its final name after a crash had its link before, and a link of an earlier boot tells
that what it names cannot be trusted.
"""

import asyncio
import ctypes
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from tidemill_worker import folders

_BOOT = Path("/proc/sys/kernel/random/boot_id")

_libc = ctypes.CDLL(None, use_errno=True)


class Unsettled:
    """The links of one folder. Several workers may share it."""

    def __init__(self, folder: Path, *, boot: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._boot = boot or _this_boot()
        self._one_at_a_time = asyncio.Lock()

    def recover(self, start_over: Callable[[], None]) -> None:
        """Have everything made anew if the machine went down before all was on the disk."""
        with (self._folder / ".lock").open("w") as lock:  # one worker at a time
            fcntl.flock(lock, fcntl.LOCK_EX)
            links = {link: str(link.readlink()) for link in self._folder.iterdir() if link.is_symlink()}
            if any(boot != self._boot for boot in links.values()):
                start_over()
                for link in links:
                    link.unlink()
                return
            for link in links:
                if not folders.is_alive(link.suffix[1:]):  # this process looks after them from now on
                    link.replace(self._link(link.stem))

    def add(self, name: str) -> None:
        """Say that something is about to get its name."""
        link = self._link(name)
        link.unlink(missing_ok=True)
        link.symlink_to(self._boot)

    async def settle(self) -> None:
        """See to it that what was said is on the disk."""
        async with self._one_at_a_time:
            while links := list(self._folder.glob(f"*.{os.getpid()}")):
                await asyncio.to_thread(_sync, self._folder)
                for link in links:
                    link.unlink(missing_ok=True)

    def _link(self, name: str) -> Path:
        return self._folder / f"{name}.{os.getpid()}"


def _this_boot() -> str:
    return _BOOT.read_text().strip() if _BOOT.exists() else "unknown"


def _sync(folder: Path) -> None:
    """Wait until everything of a file system is on its disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _libc.syncfs(descriptor) if hasattr(_libc, "syncfs") else os.sync()
    finally:
        os.close(descriptor)
