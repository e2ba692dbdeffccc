"""Images of Python packages alone: `uv` environments, resolved once, from wheels, compiled.

An environment is relocatable, so that it can be made in one place and used in another. Its files are hard
links into uv's cache, where they are compiled: the next environment with the same packages has their
bytecode too, and costs milliseconds.
"""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tidemill import exception
from tidemill._wire.specs import ImageSpec
from tidemill_worker import folders, recipes
from tidemill_worker.benches import Bench
from tidemill_worker.building import Order, check, revealed
from tidemill_worker.bytecode import Bytecode
from tidemill_worker.interpreters import Interpreter
from tidemill_worker.locked_projects import WHEELS_ALONE, requirements
from tidemill_worker.recipes import Install, Recipe
from tidemill_worker.resolutions import Resolutions
from tidemill_worker.uv import Ran, Say, Uv, silent

# What uv says when only a source distribution would do and it may not build one.
_NEEDS_BUILD = ("no usable wheels", "no wheels", "--no-build", "building source distributions is disabled")
_PLAIN = ("--no-python-downloads",)
_WHEELS = ("--no-build",)
_CACHED = ("--no-build", "--offline")

Command = tuple[str | Path, ...]


@dataclass(frozen=True, slots=True)
class Making:
    """One environment that is being made: of what, where, and who hears of it."""

    recipe: Recipe
    interpreter: Interpreter
    bench: Bench
    workspace: str
    say: Say
    variables: Sequence[dict[str, str]]  # of each layer's build


class Environments:
    """Makes environments."""

    def __init__(self, uv: Uv, resolutions: Resolutions, *, isolated: bool = False) -> None:
        """`isolated`: no code of packages may run on this machine, nor any option reach its files."""
        self._isolated = isolated
        self._uv = uv
        self._resolutions = resolutions
        self._bytecode = Bytecode(uv)
        uv.sweep()

    async def make(
        self, spec: ImageSpec, recipe: Recipe, interpreter: Interpreter, bench: Bench, order: Order, say: Say
    ) -> None:
        """Make an environment on a bench; `ImageBuildError` tells the layer that failed."""
        variables = [await self._variables(spec, install, order) for install in recipe.installs]
        making = Making(recipe, interpreter, bench, order.workspace, say, variables)
        if self._isolated:
            for install, given in zip(recipe.installs, variables, strict=True):
                recipes.refuse_daring(install, given)
        layers = await self._resolved(making) if recipe.installs else ()
        await self._fill(making, layers)
        if recipe.installs and await self._bytecode.complete(interpreter):
            # Its files have bytecode beside them now.
            await asyncio.to_thread(shutil.rmtree, bench.environment)
            await self._fill(replace(making, say=silent), layers)

    def forget(self) -> None:
        """Remove what is kept for the next environments."""
        if self._uv.cache is not None:
            shutil.rmtree(self._uv.cache, ignore_errors=True)

    async def _variables(self, spec: ImageSpec, install: Install, order: Order) -> dict[str, str]:
        return {**await revealed(spec, install.secrets, order), **install.env}

    # --- to exact versions

    async def _resolved(self, making: Making) -> tuple[str, ...]:
        """Return what each layer installs: what was resolved before, by whichever worker, or just now."""
        key = recipes.resolution_key(making.recipe, making.interpreter.version, making.workspace)
        kept = await self._resolutions.get(making.workspace, key)
        if kept is None:
            kept = await self._resolutions.put(making.workspace, key, await self._resolve(making))
        return kept

    async def _resolve(self, making: Making) -> tuple[str, ...]:
        layers: list[str] = []
        python = making.interpreter.path
        for install, given in zip(making.recipe.installs, making.variables, strict=True):
            env = {**given, **recipes.git_credentials(given)}
            if install.project:
                place = making.bench.folder / f"project-{install.number}"
                place.mkdir()
                env |= WHEELS_ALONE if self._isolated else {}
                layers.append(await requirements(self._uv, install, place, python, env, making.say))
            else:
                layers.append(await self._compile(making, install, layers, env))
        return tuple(layers)

    async def _compile(self, making: Making, install: Install, before: list[str], env: dict[str, str]) -> str:
        """Return the packages of a layer with exact versions. What earlier layers have stays if it can."""
        wanted, found = making.bench.folder / "wanted.txt", making.bench.folder / "found.txt"
        _write(wanted, install.packages)
        _write(found, before)
        command: Command = (
            "pip", "compile", wanted, "--output-file", found, "--python", making.interpreter.path,
            "--generate-hashes", "--no-header", "--no-annotate", "--quiet", *_PLAIN, *install.options,
        )  # fmt: skip
        check(await self._from_wheels(making, command, env, _WHEELS), install.shown)
        return await asyncio.to_thread(found.read_text)

    # --- to files

    async def _fill(self, making: Making, layers: tuple[str, ...]) -> None:
        environment = making.bench.environment
        if not making.bench.skeleton.is_dir():
            await self._make_skeleton(making)
        await asyncio.to_thread(shutil.copytree, making.bench.skeleton, environment, symlinks=True)
        python = environment / "bin" / "python"
        for install, exact, given in zip(making.recipe.installs, layers, making.variables, strict=True):
            env = {**given, **recipes.git_credentials(given)}
            await self._install(making, install, exact, python, env)

    async def _make_skeleton(self, making: Making) -> None:
        place = making.bench.folder / "skeleton"
        made = await self._uv.run(
            "venv", "--python", making.interpreter.path, "--relocatable", "--no-project", "--quiet", place,
            *_PLAIN, held=(making.bench.lock,),
        )  # fmt: skip
        check(made, "making the environment")
        await asyncio.to_thread(folders.publish, place, making.bench.skeleton)

    async def _install(
        self, making: Making, install: Install, exact: str, python: Path, env: dict[str, str]
    ) -> None:
        pinned = making.bench.folder / "exact.txt"
        pinned.write_text(exact)
        command: Command = (
            "pip", "install", "--python", python, "--no-deps", "-r", pinned, *_PLAIN, *install.options
        )  # fmt: skip
        # With exact versions and hashes there is nothing to ask an index for what is in the cache.
        check(await self._from_wheels(making, command, env, _CACHED, _WHEELS), install.shown)

    async def _from_wheels(
        self, making: Making, command: Command, env: dict[str, str], *ways: tuple[str, ...]
    ) -> Ran:
        """Run uv on wheels alone, in one of several ways, and with builds only where a wheel is missing."""
        held = (making.bench.lock,)
        for way in ways:
            told: list[str] = []
            ran = await self._uv.run(*command, *way, env=env, say=told.append, held=held)
            if not ran.status:
                break
        if ran.status and any(words in ran.complaints for words in _NEEDS_BUILD):
            if self._isolated:
                raise exception.ImageBuildError(
                    f"a package has no wheel, and to build it would run its code outside of a container\n"
                    f"{ran.complaints}",
                    hint="put .apt_install('build-essential') before it: it is built in there then",
                )
            making.say("a package has no wheel: it is built")
            return await self._uv.run(*command, env=env, say=making.say, held=held)
        for line in told:
            making.say(line)
        return ran


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
