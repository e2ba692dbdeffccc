"""A stage for environments: the worker's own parts, without a worker around them.

As a program it builds images of one package each, and can be killed:

    python package_stage.py <folder> <wheels> <package>...      says `built <package>` or `failed <why>`
    python package_stage.py --full <folder> <wheels> <package>  the first time on a disk that is full
"""

import asyncio
import os
import sys
from pathlib import Path

import structlog

from tidemill import Image
from tidemill._wire import subjects
from tidemill._wire.images import GetResolution, PutResolution, Resolution
from tidemill.exception import ImageBuildError
from tidemill_common.bus.memory import MemoryServer
from tidemill_common.metrics import new_registry
from tidemill_common.records import Recorder
from tidemill_common.requests import Endpoints
from tidemill_worker import images
from tidemill_worker.building import Order
from tidemill_worker.children import Children
from tidemill_worker.environments import Environments
from tidemill_worker.images import Images
from tidemill_worker.interpreters import Interpreters
from tidemill_worker.metrics import Metrics
from tidemill_worker.node import Node
from tidemill_worker.records import Records
from tidemill_worker.resolutions import Resolutions
from tidemill_worker.uses import Uses
from tidemill_worker.uv import Uv

WORKSPACE = "main"


def recipe(wheels: Path, package: str) -> Image:
    return Image.debian_slim().pip_install(package, find_links=str(wheels), extra_options="--no-index")


class PackageStage:
    """Builds images in one folder, as one worker does. `open` it on a loop, in a group of tasks."""

    def __init__(self, folder: Path, *, isolated: bool = False) -> None:
        self.folder = folder
        self._isolated = isolated
        self._kept: dict[str, tuple[str, ...]] = {}

    async def open(self, tasks: asyncio.TaskGroup) -> None:
        log, registry = structlog.get_logger(), new_registry("stage", "1")
        bus = MemoryServer().connect()

        async def get(_workspace: str, request: GetResolution) -> Resolution:
            return Resolution(self._kept.get(request.key))

        async def put(_workspace: str, request: PutResolution) -> Resolution:
            return Resolution(self._kept.setdefault(request.key, request.layers))

        make = Endpoints(log, registry)
        endpoints = {
            subjects.images(WORKSPACE, "get_resolution"): make.endpoint("get", GetResolution, get),
            subjects.images(WORKSPACE, "put_resolution"): make.endpoint("put", PutResolution, put),
        }
        await bus.serve("tidemill-images", "1.0.0", endpoints)
        records = Records(Recorder(bus, "wo-1", log, registry))
        node = Node("wo-1", bus, log, Metrics(registry), tasks, records)
        uv = Uv(Children(), self.folder / "uv")
        environments = Environments(uv, Resolutions(node), isolated=self._isolated)
        self.images = Images(
            self.folder / "images", node, environments, Interpreters(uv), None, budget=1 << 40
        )

    async def build(self, wheels: Path, package: str) -> images.Image:
        """Build an image, and let it go again."""

        async def nothing(_wanted: object) -> None:
            raise AssertionError

        order = Order(f"co-{package}", WORKSPACE, print, nothing, nothing)  # type: ignore[arg-type]
        try:
            return await self.images.get(recipe(wheels, package)._spec(), order)
        finally:
            self.images.release(order.holder)

    def made(self) -> list[Path]:
        """Return what looks like an image."""
        return [path for path in (self.folder / "images").iterdir() if not path.name.startswith(".")]


async def build(folder: Path, wheels: Path, packages: list[str]) -> None:
    async with asyncio.TaskGroup() as tasks:
        stage = PackageStage(folder)
        await stage.open(tasks)
        for package in packages:
            try:
                await stage.build(wheels, package)
            except ImageBuildError as error:
                print("failed", " ".join(str(error).split()), flush=True)
            else:
                print("built", package, flush=True)
        await stage.images.close()


def all_free(benches: Path) -> bool:
    """Return whether nobody works on a bench any more: programs outlive who started them."""
    locks = Uses(benches / ".locks")
    taken = [locks.take(path.name) for path in (benches / ".locks").iterdir()]
    for lock in taken:
        if lock is not None:
            os.close(lock)
    return None not in taken


def fill(path: Path, left: int) -> None:
    """Take all but some bytes of a file system."""
    free = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - left)


if __name__ == "__main__":
    full, (folder, wheels, *packages) = sys.argv[1] == "--full", sys.argv[1 + (sys.argv[1] == "--full") :]
    if full:
        fill(filler := Path(folder) / "filler", left=400_000)
        asyncio.run(build(Path(folder), Path(wheels), packages))
        there = [path.name for path in (Path(folder) / "images").iterdir() if path.name[0] != "."]
        print("there", there, flush=True)
        filler.unlink()
    asyncio.run(build(Path(folder), Path(wheels), packages))
