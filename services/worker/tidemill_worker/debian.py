"""The base of `debian_slim` images with a file system of their own: a Debian tree, made once per worker."""

import asyncio
import os
import re
import shutil
from pathlib import Path

from tidemill import exception
from tidemill._container import syscalls
from tidemill_worker.building import check
from tidemill_worker.children import Children
from tidemill_worker.uses import PAUSE, Uses
from tidemill_worker.uv import Say, run

RELEASE = "bookworm"
PYTHON = "3.11"  # of that release
PACKAGES = ("ca-certificates", "python3", "libpython3-stdlib")
TIMEOUT = 1800.0  # seconds
_ESCAPED = re.compile(r"\\([0-7]{3})")  # a space, tab, line break or backslash in a table of mounts
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


async def tree(folder: Path, mirror: str, children: Children, say: Say) -> Path:
    """Return the archive of the tree, made by `mmdebstrap` if it is not there.

    Raises:
        ImageBuildError: it cannot be made.
    """
    archive = folder / f"{RELEASE}.tar"
    if await asyncio.to_thread(archive.exists):
        return archive
    program = shutil.which("mmdebstrap")
    if program is None:
        raise exception.ImageBuildError(
            "the base of Image.debian_slim() cannot be made on this worker: mmdebstrap is not installed",
            hint="run: apt-get install mmdebstrap",
        )
    locks = Uses(folder / ".locks")
    while (lock := locks.take(RELEASE)) is None:  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(PAUSE)
    try:
        if not await asyncio.to_thread(archive.exists):
            say(f"making the base: Debian {RELEASE}")
            making = archive.with_suffix(".making.tar")
            command = (
                "unshare", "--mount",  # what it mounts ends with it, however that happens
                program, "--variant=minbase", f"--include={','.join(PACKAGES)}", "--format=tar",
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
                RELEASE, str(making), f"deb {mirror} {RELEASE} main",
                f"deb {mirror} {RELEASE}-updates main",
            )  # fmt: skip
            place = folder / ".mmdebstrap"  # cleared of what an interrupted one left there: the lock is ours
            await asyncio.to_thread(_clear, place)
            environment = {**os.environ, "TMPDIR": str(place)}
            ran = await run(children, command, environment, held=(lock,), timeout=TIMEOUT)
            check(ran, "making the base of Image.debian_slim()")
            await asyncio.to_thread(_publish, making, archive)
            await asyncio.to_thread(shutil.rmtree, place)
    finally:
        os.close(lock)
    return archive


def _clear(place: Path) -> None:
    """Empty a folder, but never through a mount: behind it may lie the machine's own devices."""
    for mount in reversed(_mounts_in(place, Path("/proc/self/mounts").read_text())):
        syscalls.unmount(mount)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o755)


def _mounts_in(place: Path, table: str) -> list[str]:
    mounts = (line.split()[1] for line in table.splitlines())
    paths = (_ESCAPED.sub(lambda found: chr(int(found[1], 8)), mount) for mount in mounts)
    return [path for path in paths if Path(path).is_relative_to(place)]


def _publish(making: Path, archive: Path) -> None:
    with making.open("rb") as file:
        os.fsync(file.fileno())
    making.rename(archive)
