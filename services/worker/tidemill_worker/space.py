"""Disk space of images: what they take, and which of them go."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SIZE = ".size"  # a file beside an image's own: bytes, measured once


@dataclass(frozen=True, slots=True)
class Stored:
    """An image on the disk: its bytes, and when it was used last (seconds since the epoch)."""

    key: str
    size: int
    used: float


def victims(images: Iterable[Stored], budget: int, *, keep: Collection[str]) -> Iterator[str]:
    """Yield images to remove until the rest fits the budget, the least recently used first."""
    there = sorted(images, key=lambda image: image.used)
    excess = sum(image.size for image in there) - budget
    for image in there:
        if excess <= 0:
            return
        if image.key not in keep:
            excess -= image.size
            yield image.key


def measure(folder: Path) -> list[Stored]:
    """Return the images in a folder."""
    found: list[Stored] = []
    for path in folder.iterdir():
        if not path.name.startswith("."):
            with suppress(FileNotFoundError, NotADirectoryError):  # another worker removed it just now
                found.append(Stored(path.name, _size(path), path.stat().st_mtime))
    return found


def _size(folder: Path) -> int:
    """Return the bytes of an image. It never changes, so it is measured once."""
    used = folder.stat().st_mtime
    kept = folder / SIZE
    if not kept.exists():
        kept.write_text(str(_measured(folder)))
        os.utime(folder, (used, used))  # looking is no use
    return int(kept.read_text())


def _measured(folder: Path) -> int:
    size = 0
    for place, _, files in os.walk(folder):
        size += sum(os.lstat(os.path.join(place, name)).st_blocks * 512 for name in files)  # noqa: PTH118
    return size
