"""Slots: small numbers that tell the workers of one machine apart, in names of groups and interfaces.

A live worker holds a lock on its slot, which the kernel takes back whatever becomes of it. Who takes a
slot sweeps up what the last one in it left.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

MOST = 64


class Slot:
    """One worker's slot."""

    def __init__(self, number: int, lock: int, path: Path) -> None:
        self.number = number
        self._lock = lock
        self._path = path

    @classmethod
    def take(cls, folder: Path) -> "Slot":
        """Take the first that is free; `OSError` if none is."""
        for _ in range(MOST):
            with suppress(FileNotFoundError, FileExistsError):  # the last one that left took it away just now
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                return cls._first_in(folder)
        raise OSError(f"{folder} cannot be made")

    @classmethod
    def _first_in(cls, folder: Path) -> "Slot":
        if folder.stat().st_uid != os.getuid():
            raise OSError(f"{folder} is somebody else's")
        for number in range(MOST):
            path = folder / f"{number}.lock"
            if (lock := _lock(path)) is not None:
                return cls(number, lock, path)
        raise OSError(f"{MOST} workers run on this machine")

    @property
    def folder(self) -> Path:
        """What all workers of this user have together."""
        return self._path.parent

    def has_others(self) -> bool:
        """Return whether workers in other slots live."""
        for path in self.folder.glob("*.lock"):
            if path != self._path:
                try:
                    lock = _lock(path, os.O_RDWR)
                except FileNotFoundError:
                    continue
                if lock is None:
                    return True
                os.close(lock)
        return False

    def abandoned(self) -> list[int]:
        """Return the slots of workers that died, which nobody has taken since."""
        found = []
        for path in self._path.parent.glob("*.lock"):
            if path != self._path and (lock := _lock(path)) is not None:
                found.append(int(path.stem))
                path.unlink(missing_ok=True)
                os.close(lock)
        return found

    def release(self) -> None:
        """Give it back."""
        self._path.unlink(missing_ok=True)
        os.close(self._lock)
        with suppress(OSError):
            self._path.parent.rmdir()


def _lock(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int | None:
    """Return a descriptor that holds the lock, or None if somebody else holds it."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:  # else its last holder has just removed it
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
