"""Images, one for each content, shared by all containers that use it.

    <images>/<key>/                an environment, or the record of a root file system
    <images>/.locks/<key>          held by whoever uses, makes or removes it
    <images>/.<key>.<pid>/         being made or removed
    <images>/.benches/             where environments are made
    <images>/.unsettled/           what a machine that goes down now may lose

What is made is whole before it gets its name: a worker that dies leaves nothing that looks like an image.
"""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tidemill import exception
from tidemill._wire.specs import ImageSpec
from tidemill_worker import folders, recipes, roots, space
from tidemill_worker.benches import Benches
from tidemill_worker.building import Order, Voice
from tidemill_worker.environments import Environments
from tidemill_worker.interpreters import Interpreter, Interpreters
from tidemill_worker.node import Node
from tidemill_worker.recipes import Recipe
from tidemill_worker.roots import Roots
from tidemill_worker.unsettled import Unsettled
from tidemill_worker.uses import PAUSE, Uses

Make = Callable[[Voice], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that containers can start from.

    One of Python packages alone has an `environment` and no `layers`: it runs on whatever root file system
    its tier gives it. Otherwise `layers` are the folders that its own is made of, the uppermost first, for
    reading only, and `python` is a path in it. `version` is the minor version of that Python. `files` are
    archives by the folder that a container is to find their files in.
    """

    key: str
    python: Path
    version: str
    environment: Path | None = None
    layers: tuple[Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""
    files: tuple[tuple[str, str], ...] = ()

    def made_of(self) -> tuple[int, ...]:
        """Return what tells it from one of the same key that was removed.

        No folder gets the number of another that a sandbox still has in its root.
        """
        folders = self.layers or (self.environment or self.python,)
        return tuple(folder.stat().st_ino for folder in folders)


class Images:
    """The images under one folder. Several workers may share it.

    `builder` makes those that need a root file system; None where this worker's containers have none.
    `budget` is how many bytes they may take; the least recently used ones that nobody uses go.
    """

    def __init__(
        self,
        folder: Path,
        node: Node,
        environments: Environments,
        interpreters: Interpreters,
        builder: Roots | None,
        *,
        budget: int,
    ) -> None:
        self._folder = folders.prepare(folder)
        self._uses = Uses(self._folder / ".locks")
        self._node = node
        self._environments = environments
        self._interpreters = interpreters
        self._roots = builder
        self._budget = budget
        self._building: dict[str, tuple[asyncio.Task[None], Voice]] = {}
        self._unsettled = Unsettled(self._folder / ".unsettled")
        self._unsettled.recover(self._start_over)
        self._benches = Benches(self._folder / ".benches")
        node.spawn(self._unsettled.settle(), "have images on the disk")

    async def get(self, spec: ImageSpec, order: Order) -> Image:
        """Return an image, made if it is not there, and held for the order's holder until `release`.

        However many ask for one at the same time, it is made once, and goes on being made when one of
        them gives up.

        Raises:
            ImageBuildError: it cannot be made, or not here.
            ServiceError: the registry, which knows its exact versions, does not answer.
        """
        recipe = recipes.read(spec)
        if recipe.needs_root:
            return await self._with_root(spec, recipe, order)
        interpreter = await self._interpreters.find(recipe.python)
        key = recipes.key(recipe, interpreter.path, order.workspace)
        folder = self._folder / key

        async def make(say: Voice) -> None:
            async with self._benches.one(interpreter.path) as bench:
                await self._environments.make(spec, recipe, interpreter, bench, order, say)
                await self._publish(bench.environment, folder)

        await self._hold(key, order, make)
        return _of_packages(key, folder, interpreter, recipe)

    def release(self, holder: str) -> None:
        """Say that a holder uses its image no longer."""
        self._uses.release(holder)

    async def close(self) -> None:
        """End what is being made."""
        tasks = [task for task, _ in self._building.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._unsettled.settle()
        if self._roots is not None:
            self._roots.close()

    # --- with a root

    async def _with_root(self, spec: ImageSpec, recipe: Recipe, order: Order) -> Image:
        if self._roots is None:
            raise exception.ImageBuildError(
                f"Image.{recipe.needs_root}() needs containers with a file system of their own, "
                "which this worker's process tier has not",
                hint="run the worker in the bubblewrap tier, or install it on the worker's machine",
            )
        builder = self._roots
        key = builder.key(recipe, order.workspace)

        async def make(say: Voice) -> None:
            making = folders.making(self._folder / key)
            try:
                await builder.make(spec, recipe, making, order, say)
                await self._publish(making, self._folder / key)
            finally:
                builder.release(making)
                await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)

        await self._hold(key, order, make)
        root = await asyncio.to_thread(roots.read, self._folder / key)
        return Image(
            key, Path(root.python), root.version, None, root.layers, root.env, root.workdir, root.user,
            recipe.files,
        )  # fmt: skip

    # --- made once, held while it is used

    async def _hold(self, key: str, order: Order, make: Make) -> None:
        """See to it that an image is there and stays while its holder uses it."""
        folder = self._folder / key
        while True:
            if not folder.is_dir():
                await self._built(key, order, make)
            await self._uses.hold(key, order.holder)
            if folder.is_dir():
                break
            self._uses.release(order.holder)  # it was removed in between
        with suppress(OSError):
            os.utime(folder)  # it was used just now

    async def _built(self, key: str, order: Order, make: Make) -> None:
        if key not in self._building:
            voice = Voice()
            task = asyncio.create_task(self._build(key, make, voice), name=f"image {key}")
            task.add_done_callback(lambda _: self._building.pop(key, None))
            self._building[key] = task, voice
        task, voice = self._building[key]
        voice.join(order.say)
        try:
            await asyncio.shield(task)
        finally:
            voice.leave(order.say)

    async def _build(self, key: str, make: Make, voice: Voice) -> None:
        """Make an image, unless another worker does so already."""
        folder = self._folder / key
        while (lock := self._uses.take(key)) is None:  # noqa: ASYNC110 - held by another process
            await asyncio.sleep(PAUSE)
        try:
            if folder.is_dir():
                return
            await make(voice)
        finally:
            os.close(lock)
        self._node.spawn(self._unsettled.settle(), "have images on the disk")
        self._node.spawn(self._make_room(key), "make room for images")

    async def _publish(self, making: Path, folder: Path) -> None:
        """Give a finished folder its name."""
        self._unsettled.add(folder.name)
        await asyncio.to_thread(folders.publish, making, folder)

    def _start_over(self) -> None:
        """Remove all images, and what they were made of."""
        for image in self._folder.iterdir():
            if not image.name.startswith("."):
                _remove(image)
        shutil.rmtree(self._folder / ".benches", ignore_errors=True)
        self._environments.forget()
        if self._roots is not None:
            self._roots.forget()

    async def _make_room(self, newest: str) -> None:
        """Remove images that were not used for longest, and that nobody uses, down to the budget."""
        there = await asyncio.to_thread(space.measure, self._folder)
        for key in space.victims(there, self._budget, keep={newest}):
            lock = self._uses.take(key)
            if lock is None:
                continue
            try:
                await asyncio.to_thread(_remove, self._folder / key)
            finally:
                os.close(lock)
            self._node.log.info("image removed", image=key, reason="disk budget")
        if self._roots is not None:
            await self._roots.collect(self._folder.iterdir())


def _of_packages(key: str, folder: Path, interpreter: Interpreter, recipe: Recipe) -> Image:
    python = folder / "bin" / "python"
    return Image(key, python, interpreter.version, folder, (), recipe.env, recipe.workdir, files=recipe.files)


def _remove(folder: Path) -> None:
    """Take an image's name away before its files: what is half removed is no image."""
    going = folders.making(folder)
    with suppress(FileNotFoundError):
        folder.rename(going)
    shutil.rmtree(going, ignore_errors=True)
