"""Images with a root file system of their own, built by `buildah`, layer by layer.

Every layer that changes files is kept in the store under its key, so that the next image which begins in
the same way only adds what is new. A layer is kept when it is whole; one that was interrupted is nowhere.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tidemill import exception
from tidemill._wire.specs import ImageSpec
from tidemill_worker import build_steps, debian, folders, jails, recipes, space, store
from tidemill_worker.build_steps import Step, Written
from tidemill_worker.building import Order, check
from tidemill_worker.interpreters import OLDEST
from tidemill_worker.jails import Jail
from tidemill_worker.layer_scripts import LayerScripts, Loan
from tidemill_worker.recipes import Recipe
from tidemill_worker.uses import PAUSE, Uses
from tidemill_worker.uv import Say, silent

TIMEOUT = 3600.0  # seconds that one layer may take
RECORD = "image.json"
_BUILDING, _WORKER = "building", "this worker"  # a lock that all workers share which build here


@dataclass(frozen=True, slots=True)
class Root:
    """A finished root file system: its directories, topmost first, and how programs run in it.

    `steps` are the keys of what the store keeps of it.
    """

    python: str
    version: str
    layers: tuple[Path, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


def read(folder: Path) -> Root:
    """Return what is recorded of an image."""
    record = json.loads((folder / RECORD).read_text())
    lists = {name: tuple(record[name]) for name in ("entrypoint", "cmd", "steps")}
    return Root(**{**record, **lists, "layers": tuple(map(Path, record["layers"]))})


class Roots:
    """Builds root file systems into the jail's store."""

    def __init__(self, jail: Jail, scripts: LayerScripts, *, mirror: str) -> None:
        self._jail = jail
        self._scripts = scripts
        self._mirror = mirror
        self._uses = Uses(jail.store.with_name(f"{jail.store.name}-locks"))
        self._is_clean = False
        self._preparing = asyncio.Lock()
        self._loans = folders.prepare(jail.store.with_name(f"{jail.store.name}-loans"))

    def key(self, recipe: Recipe, workspace: str) -> str:
        """Return the name of the image that a recipe makes."""
        steps, _ = build_steps.steps(recipe.layers, self._salt(), workspace)
        return recipes.digest(["root", steps[-1].key, recipe.layers])

    async def make(self, spec: ImageSpec, recipe: Recipe, making: Path, order: Order, say: Say) -> None:
        """Build what is not there yet, and write the record of the image into a new folder.

        What it needs of the store stays there until `release` of that folder.

        Raises:
            ImageBuildError: a layer failed, or its Python cannot run functions.
        """
        jails.check(f"an image with Image.{recipe.needs_root}()")
        await self._prepare()
        steps, written = build_steps.steps(recipe.layers, self._salt(), order.workspace)
        for step in steps:
            await self._layer(spec, step, order, making.name, say)
        root = await self._finished(steps, written)
        await asyncio.to_thread(_record, making, root, store.size(self._jail.store, steps[-1].key))

    def release(self, making: Path) -> None:
        """Say that an image has got its name, or that it is not made after all."""
        self._uses.release(making.name)

    def close(self) -> None:
        """Say that this worker builds no more."""
        self._uses.release(_WORKER)

    def forget(self) -> None:
        """Remove all layers."""
        shutil.rmtree(self._jail.store, ignore_errors=True)

    async def collect(self, images: Iterable[Path]) -> None:
        """Remove from the store what no image needs and nobody is building on."""
        needed = {key for folder in images if (folder / RECORD).exists() for key in read(folder).steps}
        taken: dict[str, int] = {}
        try:
            for key in store.keys(self._jail.store):
                if key not in needed and (lock := self._uses.take(key)) is not None:
                    taken[key] = lock
            if taken:
                await self._jail.run(build_steps.forget(list(taken)), {}, silent, timeout=TIMEOUT)
        finally:
            for lock in taken.values():
                os.close(lock)

    # --- layers

    def _salt(self) -> list[str]:
        return [debian.RELEASE, self._mirror, os.uname().machine]

    async def _prepare(self) -> None:
        """Make the store, and clean it of what a worker that died was building, if nobody else builds."""
        async with self._preparing:  # builds that begin together wait until it is clean
            await asyncio.to_thread(self._jail.prepare)
            if self._is_clean:
                return
            if (lock := self._uses.take(_BUILDING)) is not None:
                try:
                    await self._jail.run(build_steps.CLEAN, {}, silent, timeout=TIMEOUT)
                finally:
                    os.close(lock)
            await self._uses.hold(_BUILDING, _WORKER)
            self._is_clean = True

    async def _layer(self, spec: ImageSpec, step: Step, order: Order, holder: str, say: Say) -> None:
        """See to it that a layer is in the store, and stays there for its holder."""
        while True:
            await self._built(spec, step, order, say)
            await self._uses.hold(step.key, f"{holder}")
            if self._has(step.key):
                return

    async def _built(self, spec: ImageSpec, step: Step, order: Order, say: Say) -> None:
        """Build a layer, unless it is there or somebody else builds it."""
        while not self._has(step.key):
            if (lock := self._uses.take(step.key)) is None:
                await asyncio.sleep(PAUSE)
                continue
            try:
                if not self._has(step.key):
                    say(f"building {step.shown}")
                    await self._build(spec, step, order, say)
            finally:
                os.close(lock)

    async def _build(self, spec: ImageSpec, step: Step, order: Order, say: Say) -> None:
        with self._loan() as loan:
            for script in await self._scripts.of(spec, step, order, loan, say):
                seconds = float(step.arguments.get("timeout", TIMEOUT))
                check(await self._jail.run(script, loan.places, say, timeout=seconds), step.shown)

    @contextmanager
    def _loan(self) -> Iterator[Loan]:
        """Have a folder for what is lent to one build. What dead workers left of theirs goes at the start."""
        place = Path(tempfile.mkdtemp(prefix=".loan", suffix=f".{os.getpid()}", dir=self._loans))
        try:
            place.chmod(0o755)  # the containers' root is nobody here
            yield Loan(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _has(self, key: str) -> bool:
        return key in store.keys(self._jail.store)

    # --- what came of it

    async def _finished(self, steps: list[Step], written: Written) -> Root:
        top = steps[-1].key
        ran = await self._jail.run(build_steps.probe(top), {}, silent, timeout=TIMEOUT)
        check(ran, "looking at the image")
        python, _, described = ran.output.partition(build_steps.PROBED)
        config = json.loads(described)["OCIv1"].get("config") or {}
        path, version = _checked_python(python)
        variables = (text.partition("=") for text in config.get("Env") or ())
        return Root(
            path,
            version,
            store.directories(self._jail.store, top),
            {**{name: value for name, _, value in variables}, **written.env},
            written.workdir or config.get("WorkingDir") or "",
            config.get("User") or "",
            written.entrypoint or tuple(config.get("Entrypoint") or ()),
            written.cmd or tuple(config.get("Cmd") or ()),
            tuple(step.key for step in steps),
        )


def _record(folder: Path, root: Root, size: int) -> None:
    folder.mkdir()
    record = {**asdict(root), "layers": [str(path) for path in root.layers]}
    (folder / RECORD).write_text(json.dumps(record))
    (folder / space.SIZE).write_text(str(size))


def _checked_python(told: str) -> tuple[str, str]:
    """Return path and version of an image's Python; `ImageBuildError` if it cannot run functions."""
    oldest = ".".join(map(str, OLDEST))
    words = (told.strip().splitlines() or [""])[-1].split()
    if len(words) != 2:
        raise exception.ImageBuildError(
            f"the image has no Python: functions need {oldest} or newer",
            hint='give its base add_python="3.12", or begin with Image.debian_slim()',
        )
    path, version = words
    if tuple(map(int, version.split("."))) < OLDEST:
        raise exception.ImageBuildError(
            f"the image's Python is {version}: functions need {oldest} or newer",
            hint='give its base add_python="3.12"',
        )
    return path, version
