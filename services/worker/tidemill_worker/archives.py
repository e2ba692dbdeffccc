"""Bundles: tars of regular files. Whatever else one holds, or names that lead out of it, is refused."""

import io
import shutil
import tarfile
from pathlib import Path

from tidemill import exception

MAX_FILES = 50_000  # in one bundle
MAX_SIZE = 1 << 30  # bytes of one bundle's files


def unpack(data: bytes, folder: Path) -> None:
    """Write the files of a bundle below a new folder; `InvalidError` for what a bundle may not hold."""
    shutil.rmtree(folder, ignore_errors=True)
    unpack_into(data, folder)


def unpack_into(data: bytes, folder: Path) -> None:
    """Write the files of a bundle below a folder, beside what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for number, member in enumerate(archive):
                size += member.size
                if number >= MAX_FILES or size > MAX_SIZE:
                    raise exception.InvalidError("the bundle of code is too large")
                _write(archive, member, folder)
    except tarfile.TarError as error:
        raise exception.InvalidError(f"the bundle of code cannot be read: {error}") from error


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = Path(member.name)
    if not member.isreg() or name.is_absolute() or ".." in name.parts:
        raise exception.InvalidError(f"the bundle of code may not hold {member.name!r}")
    content = archive.extractfile(member)
    assert content is not None
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.read())
    path.chmod(0o755 if member.mode & 0o100 else 0o644)
