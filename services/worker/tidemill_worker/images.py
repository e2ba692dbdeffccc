"""Images as `uv` environments, one for each content, shared by all containers that use it.

    images/<key>/            finished, never changed again
    images/.<key>.<pid>/     being made by a worker process; renamed when it is whole

An environment is relocatable, so that it can be made in one place and used in another.
"""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tidemill import exception
from tidemill._wire.control import ImageSpec
from tidemill_worker import recipes
from tidemill_worker.interpreters import Interpreters
from tidemill_worker.recipes import Install, Recipe
from tidemill_worker.uv import Ran, Uv

# What uv says when only a source distribution would do and it may not build one.
_NEEDS_BUILD = ("no usable wheels", "no wheels", "--no-build", "building source distributions is disabled")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that containers can start from: its environment's key, its Python, and the recipe."""

    key: str
    python: Path
    recipe: Recipe


class Images:
    """The environments under one folder. Several workers may share it."""

    def __init__(self, folder: Path, uv: Uv, interpreters: Interpreters) -> None:
        self._folder = folder
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
        key = recipes.key(recipe, interpreter)
        folder = self._folder / key
        if not folder.is_dir():
            task = self._building.get(key)
            if task is None:
                task = asyncio.create_task(self._make(recipe, interpreter, folder), name=f"image {key}")
                task.add_done_callback(lambda _: self._building.pop(key, None))
                self._building[key] = task
            await asyncio.shield(task)
        return Image(key, folder / "bin" / "python", recipe)

    async def close(self) -> None:
        """End what is being made."""
        tasks = list(self._building.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def clean(self) -> None:
        """Remove what dead workers left half made."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(".*.*"):
            if not _is_alive(left.suffix[1:]):
                shutil.rmtree(left, ignore_errors=True)

    async def _make(self, recipe: Recipe, interpreter: str, folder: Path) -> None:
        making = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            await self._checked("venv", "--python", interpreter, "--relocatable", "--no-project", making)
            for install in recipe.installs:
                await self._install(install, making / "bin" / "python")
            _publish(making, folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)

    async def _install(self, install: Install, python: Path) -> None:
        """Install packages: from wheels alone, and with builds only where a wheel is missing."""
        command = (
            "pip", "install", "--python", python, "--compile-bytecode", "--no-python-downloads",
            *install.options, "--", *install.packages,
        )  # fmt: skip
        ran = await self._uv.run(*command[:2], "--no-build", *command[2:])
        if ran.status and any(words in ran.complaints for words in _NEEDS_BUILD):
            ran = await self._uv.run(*command)
        _check(ran, f"packages could not be installed: {', '.join(install.packages)}")

    async def _checked(self, *arguments: str | Path) -> None:
        _check(await self._uv.run(*arguments, "--no-python-downloads"), "the environment could not be made")


def _check(ran: Ran, what: str) -> None:
    if ran.status:
        raise exception.ImageBuildError(f"{what}\n{ran.complaints}")


def _publish(making: Path, folder: Path) -> None:
    """Give a finished environment its name, unless another worker was faster."""
    try:
        making.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
