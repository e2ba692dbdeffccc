"""The users' code: bundles by workspace and digest, unpacked once and compiled, and pickled functions."""

import asyncio
import compileall
import hashlib
import os
import shutil
from pathlib import Path

from tidemill import exception
from tidemill._bus import blobs
from tidemill._bus.protocol import Bus, BusError
from tidemill._wire import subjects
from tidemill_worker import archives, folders
from tidemill_worker.children import Children
from tidemill_worker.images import Image
from tidemill_worker.interpreters import OWN

COMPILE_TIMEOUT = 60.0  # seconds
FETCH_FOR, FETCH_PAUSE = 30.0, 0.2  # seconds for which, and between which, stored code is asked for
COMPILED_HERE = 32 * 1024  # bytes of a bundle up to which no process is started for it: 1-3 ms of the loop

_COMPILE = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, legacy=False)"


class Sources:
    """The bundles under one folder. Several workers may share it."""

    def __init__(self, folder: Path, bus: Bus, children: Children) -> None:
        self._folder = folders.prepare(folder)
        self._bus = bus
        self._children = children
        self._getting: dict[Path, asyncio.Task[Path]] = {}

    async def bundles(self, workspace: str, digests: tuple[str, ...], image: Image) -> tuple[Path, ...]:
        """Return the folders of some bundles, fetched and unpacked where they are not there."""
        # Who knows another workspace's digest does not have its code.
        home = self._folder / subjects.workspace(workspace)
        wanted = (self._unpacked(workspace, home / _plain(digest), image) for digest in digests)
        return tuple(await asyncio.gather(*wanted))

    async def files(self, workspace: str, digest: str) -> Path:
        """Return the folder of a bundle of files that are no code, as they are."""
        home = self._folder / subjects.workspace(workspace) / "files"
        return await self._unpacked(workspace, home / _plain(digest), None)

    async def serialized(self, workspace: str, digest: str) -> bytes | None:
        """Return a function that was sent by value, or None where there is none."""
        return await self.fetch(workspace, digest) if digest else None

    async def _unpacked(self, workspace: str, folder: Path, image: Image | None) -> Path:
        if folder.is_dir():  # noqa: ASYNC240 - at every start: cheaper than a thread
            return folder
        task = self._getting.get(folder)
        if task is None:
            task = asyncio.create_task(self._get(workspace, folder, image), name=f"bundle {folder.name[:12]}")
            task.add_done_callback(lambda _: self._getting.pop(folder, None))
            self._getting[folder] = task
        return await asyncio.shield(task)

    async def _get(self, workspace: str, folder: Path, image: Image | None) -> Path:
        data = await self.fetch(workspace, folder.name)
        making = folders.making(folder)
        try:
            await asyncio.to_thread(archives.unpack, data, making)
            if image is not None:
                await self._compile(making, image, len(data))
            folders.publish(making, folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)
        return folder

    async def fetch(self, workspace: str, digest: str) -> bytes:
        """Return a stored blob of a workspace, such as a bundle."""
        data = await self._stored(workspace, digest)
        if hashlib.sha256(data).hexdigest() != digest:
            raise exception.DataLossError(f"the code {digest[:12]} is not what was sent")
        return data

    async def _stored(self, workspace: str, digest: str) -> bytes:
        """Return what is stored. A bus that is away for a while is no failure of the code to start."""
        deadline = asyncio.get_running_loop().time() + FETCH_FOR
        while True:
            try:
                return await blobs.get_named(self._bus, workspace, digest)
            except BusError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(FETCH_PAUSE)

    async def _compile(self, folder: Path, image: Image, size: int) -> None:
        """Compile what can be compiled; the rest tells its own error when it is imported."""
        if image.layers and image.version != OWN:
            return  # its Python runs in its own root alone
        if image.version == OWN and (size < COMPILED_HERE or image.layers):
            compileall.compile_dir(folder, quiet=2)
            return
        async with self._children.starting():
            process = await asyncio.create_subprocess_exec(
                image.python, "-I", "-S", "-c", _COMPILE, folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            )  # fmt: skip
            self._children.own.add(process.pid)
        try:
            async with asyncio.timeout(COMPILE_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        finally:
            self._children.own.discard(process.pid)


def _plain(digest: str) -> str:
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise exception.InvalidError(f"not the digest of a bundle: {digest!r}")
    return digest
