"""Images as `uv` environments, one for each content, shared by all containers that use it.

An environment is relocatable, so that it can be made in one place and used in another.
"""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from tidemill import exception
from tidemill._wire.specs import ImageSpec
from tidemill_worker import folders, recipes
from tidemill_worker.interpreters import Interpreters
from tidemill_worker.recipes import Install, Recipe
from tidemill_worker.uv import Ran, Uv

# What uv says when only a source distribution would do and it may not build one.
_NEEDS_BUILD = ("no usable wheels", "no wheels", "--no-build", "building source distributions is disabled")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that containers can start from: its environment's key, its Python, and the recipe.

    `version` is the minor version of that Python. `layers` are the folders that its root is made of, the
    uppermost first; without any it is the machine's own /usr.
    """

    key: str
    python: Path
    version: str
    recipe: Recipe
    layers: tuple[Path, ...] = ()


class Images:
    """The environments under one folder. Several workers may share it."""

    def __init__(self, folder: Path, uv: Uv, interpreters: Interpreters) -> None:
        self._folder = folders.prepare(folder)
        self._uv = uv
        self._interpreters = interpreters
        self._building: dict[str, asyncio.Task[None]] = {}

    async def get(self, spec: ImageSpec) -> Image:
        """Return an image, made if it is not there; `ImageBuildError` if it cannot be made.

        However many ask for one at the same time, it is made once, and goes on being made when one of
        them gives up.
        """
        recipe = recipes.read(spec)
        interpreter = await self._interpreters.find(recipe.python)
        key = recipes.key(recipe, interpreter.path)
        folder = self._folder / key
        if not folder.is_dir():
            task = self._building.get(key)
            if task is None:
                task = asyncio.create_task(self._make(recipe, interpreter.path, folder), name=f"image {key}")
                task.add_done_callback(lambda _: self._building.pop(key, None))
                self._building[key] = task
            await asyncio.shield(task)
        return Image(key, folder / "bin" / "python", interpreter.version, recipe)

    async def close(self) -> None:
        """End what is being made."""
        tasks = list(self._building.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(self, recipe: Recipe, interpreter: str, folder: Path) -> None:
        making = folders.making(folder)
        try:
            await self._checked("venv", "--python", interpreter, "--relocatable", "--no-project", making)
            for install in recipe.installs:
                await self._install(install, making / "bin" / "python")
            folders.publish(making, folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)

    async def _install(self, install: Install, python: Path) -> None:
        """Install packages: from wheels alone, and with builds only where a wheel is missing."""
        command = ("pip", "install", "--python", str(python), "--compile-bytecode", "--no-python-downloads")
        wanted = (*install.options, "--", *install.packages)
        ran = await self._uv.run(*command, "--no-build", *wanted)
        if ran.status and any(words in ran.complaints for words in _NEEDS_BUILD):
            ran = await self._uv.run(*command, *wanted)
        _check(ran, f"packages could not be installed: {', '.join(install.packages)}")

    async def _checked(self, *arguments: str | Path) -> None:
        _check(await self._uv.run(*arguments, "--no-python-downloads"), "the environment could not be made")


def _check(ran: Ran, what: str) -> None:
    if ran.status:
        raise exception.ImageBuildError(f"{what}\n{ran.complaints}")
