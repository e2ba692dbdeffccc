"""Images of Python packages alone: `uv` environments, resolved once, from wheels, compiled.

An environment is relocatable, so that it can be made in one place and used in another. Its files are hard
links into uv's cache, where they are compiled: the next environment with the same packages has their
bytecode too, and costs milliseconds.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tidemill._wire.specs import ImageSpec
from tidemill_worker import recipes
from tidemill_worker.building import Order, check, revealed
from tidemill_worker.bytecode import Bytecode
from tidemill_worker.interpreters import Interpreter
from tidemill_worker.locked_projects import requirements
from tidemill_worker.recipes import Install, Recipe
from tidemill_worker.resolutions import Resolutions
from tidemill_worker.uv import Ran, Say, Uv

# What uv says when only a source distribution would do and it may not build one.
_NEEDS_BUILD = ("no usable wheels", "no wheels", "--no-build", "building source distributions is disabled")
_PLAIN = ("--no-python-downloads",)


class Environments:
    """Makes environments."""

    def __init__(self, uv: Uv, resolutions: Resolutions) -> None:
        self._uv = uv
        self._resolutions = resolutions
        self._bytecode = Bytecode(uv)

    async def make(
        self, spec: ImageSpec, recipe: Recipe, interpreter: Interpreter, folder: Path, order: Order, say: Say
    ) -> None:
        """Make an environment at `folder`; `ImageBuildError` tells the layer that failed."""
        variables = [await self._variables(spec, install, order) for install in recipe.installs]
        layers: tuple[str, ...] = ()
        if recipe.installs:
            layers = await self._resolved(recipe, interpreter, order, variables, say)
        await self._fill(recipe, interpreter, folder, layers, variables, say)
        if recipe.installs and await self._bytecode.complete(interpreter):
            await asyncio.to_thread(shutil.rmtree, folder)  # its files have bytecode beside them now
            await self._fill(recipe, interpreter, folder, layers, variables, say)

    async def _variables(self, spec: ImageSpec, install: Install, order: Order) -> dict[str, str]:
        given = {**await revealed(spec, install.secrets, order), **install.env}
        return {**given, **recipes.git_credentials(given)}

    # --- to exact versions

    async def _resolved(
        self,
        recipe: Recipe,
        interpreter: Interpreter,
        order: Order,
        variables: list[dict[str, str]],
        say: Say,
    ) -> tuple[str, ...]:
        """Return what each layer installs: what was resolved before, by whichever worker, or just now."""
        key = recipes.resolution_key(recipe, interpreter.version, order.workspace)
        kept = await self._resolutions.get(order.workspace, key)
        if kept is None:
            found = await self._resolve(recipe, interpreter, variables, say)
            kept = await self._resolutions.put(order.workspace, key, found)
        return kept

    async def _resolve(
        self, recipe: Recipe, interpreter: Interpreter, variables: list[dict[str, str]], say: Say
    ) -> tuple[str, ...]:
        layers: list[str] = []
        for install, env in zip(recipe.installs, variables, strict=True):
            if install.project:
                layers.append(await requirements(self._uv, install, interpreter.path, env, say))
            else:
                layers.append(await self._compile(install, interpreter, layers, env, say))
        return tuple(layers)

    async def _compile(
        self, install: Install, interpreter: Interpreter, before: list[str], env: dict[str, str], say: Say
    ) -> str:
        """Return the packages of a layer with exact versions. What earlier layers have stays if it can."""
        with tempfile.TemporaryDirectory() as place:
            wanted, found = Path(place, "wanted.txt"), Path(place, "found.txt")
            _write(wanted, install.packages)
            _write(found, before)
            command: tuple[str | Path, ...] = (
                "pip", "compile", wanted, "--output-file", found, "--python", interpreter.path,
                "--generate-hashes", "--no-header", "--no-annotate", "--quiet", *_PLAIN, *install.options,
            )  # fmt: skip
            check(await self._from_wheels(command, env, say), install.shown)
            return await asyncio.to_thread(found.read_text)

    # --- to files

    async def _fill(
        self,
        recipe: Recipe,
        interpreter: Interpreter,
        folder: Path,
        layers: tuple[str, ...],
        variables: list[dict[str, str]],
        say: Say,
    ) -> None:
        made = await self._uv.run(
            "venv", "--python", interpreter.path, "--relocatable", "--no-project", "--quiet", folder, *_PLAIN
        )
        check(made, "making the environment")
        for install, exact, env in zip(recipe.installs, layers, variables, strict=True):
            await self._install(install, exact, folder / "bin" / "python", env, say)

    async def _install(
        self, install: Install, exact: str, python: Path, env: dict[str, str], say: Say
    ) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(exact)
            file.flush()
            command: tuple[str | Path, ...] = (
                "pip", "install", "--python", python, "--no-deps", "-r", file.name, *_PLAIN, *install.options
            )  # fmt: skip
            check(await self._from_wheels(command, env, say), install.shown)

    async def _from_wheels(self, command: tuple[str | Path, ...], env: dict[str, str], say: Say) -> Ran:
        """Run uv on wheels alone, and with builds only where a wheel is missing."""
        told: list[str] = []
        ran = await self._uv.run(*command, "--no-build", env=env, say=told.append)
        if ran.status and any(words in ran.complaints for words in _NEEDS_BUILD):
            say("a package has no wheel: it is built")
            return await self._uv.run(*command, env=env, say=say)
        for line in told:
            say(line)
        return ran


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
