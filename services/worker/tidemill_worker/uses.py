"""Who uses which image: locks on files, which the kernel takes back whatever becomes of a worker.

Whoever uses an image shares the lock of its key; whoever makes or removes it has the lock alone. So one of
several workers makes an image while the others wait, and none is removed under anybody's feet.
"""

import asyncio
import fcntl
import os
from pathlib import Path

PAUSE = 0.05  # seconds between two looks at a lock that somebody else has


class Uses:
    """The locks under one folder that this process holds, by key; holders of one key share one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._held: dict[str, int] = {}  # key -> descriptor
        self._holders: dict[str, set[str]] = {}

    def is_used(self, key: str) -> bool:
        """Return whether something in this process uses an image."""
        return key in self._held

    def join(self, key: str, holder: str) -> None:
        """Have one more holder of a key that is held."""
        self._holders[key].add(holder)

    async def hold(self, key: str, holder: str) -> None:
        """Share the lock of a key, as soon as nobody has it alone."""
        while key not in self._held:
            descriptor = self._open(key)
            if _lock(descriptor, fcntl.LOCK_SH):
                self._held[key] = descriptor
                self._holders[key] = set()
                break
            os.close(descriptor)
            await asyncio.sleep(PAUSE)
        self._holders[key].add(holder)

    def release(self, holder: str) -> None:
        """Give up whatever a holder holds."""
        for key, holders in list(self._holders.items()):
            holders.discard(holder)
            if not holders:
                del self._holders[key]
                os.close(self._held.pop(key))

    def take(self, key: str) -> int | None:
        """Return a descriptor that has the lock alone until it is closed, or None if somebody uses it."""
        descriptor = self._open(key)
        if _lock(descriptor, fcntl.LOCK_EX):
            return descriptor
        os.close(descriptor)
        return None

    def _open(self, key: str) -> int:
        return os.open(self._folder / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
