"""A stage for builds of root file systems: the worker's own parts, without a worker around them.

As a program it builds one image, and can be killed: python root_stage.py <folder> <command to run>
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tidemill import Image
from tidemill._image_parts import Collected
from tidemill_worker import recipes, roots, runtime_layer, store
from tidemill_worker.building import Order
from tidemill_worker.children import Children
from tidemill_worker.interpreters import Interpreters
from tidemill_worker.jails import Jail
from tidemill_worker.layer_scripts import LayerScripts
from tidemill_worker.roots import Root, Roots
from tidemill_worker.uv import Uv

MIRROR = "http://deb.debian.org/debian"
FIRST_ID = 300_000
# The Debian tree, which every run of the tests on this machine can use.
TREES = Path(tempfile.gettempdir()) / f"tidemill-tests-{os.getuid()}"


class RootStage:
    """Builds images in one folder, as one worker does."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        children = Children()
        uv = Uv(children, folder / "uv")
        self.jail = Jail(children, folder / "store", FIRST_ID)
        layer = runtime_layer.make(folder / "runtime")
        TREES.mkdir(exist_ok=True, mode=0o700)
        scripts = LayerScripts(TREES, self.jail.cache, uv, Interpreters(uv), layer, mirror=MIRROR)
        self.roots = Roots(self.jail, scripts, mirror=MIRROR)

    async def build(self, image: Image) -> Root:
        """Build an image, and let it go again."""
        into = Collected()
        spec = image._collect(into)
        spec = replace(spec, secrets=tuple(str(number) for number in range(len(into.secrets))))

        async def reveal(wanted: object) -> dict[str, str]:
            assert isinstance(wanted, list)
            return {
                name: value
                for number in wanted
                for name, value in into.secrets[int(number)]._variables().items()
            }

        async def fetch(digest: str) -> bytes:
            return into.blobs[digest]

        order = Order("co-1", "main", self.said.append, reveal, fetch)
        making = Path(tempfile.mkdtemp(dir=self.folder)) / "made"
        try:
            await self.roots.make(spec, recipes.read(spec), making, order, self.said.append)
            return roots.read(making)
        finally:
            self.roots.release(making)

    def kept(self) -> set[str]:
        """Return the keys of what the store keeps."""
        return set(store.keys(self.jail.store))

    def working(self) -> list[object]:
        """Return the working containers of builds."""
        path = self.jail.store / "root" / "overlay-containers" / "containers.json"
        return list(json.loads(path.read_text())) if path.exists() else []

    def find(self, root: Root, path: str) -> Path:
        """Return a file of an image, of the uppermost layer that has it."""
        return next(layer / path for layer in root.layers if (layer / path).exists())

    def text(self) -> str:
        return "\n".join(self.said)


def missing() -> str:
    """Return why nothing can be built here, or nothing."""
    if os.geteuid() != 0:
        return "builds need root"
    programs = ("buildah", "mmdebstrap", "docker-registry")
    return ", ".join(f"{name} is not installed" for name in programs if shutil.which(name) is None)


class Aloud(list[str]):
    """Lines that are printed as they come."""

    def append(self, line: str) -> None:
        print(line, flush=True)


if __name__ == "__main__":
    stage = RootStage(Path(sys.argv[1]))
    stage.said = Aloud()
    asyncio.run(stage.build(Image.debian_slim().run_commands(sys.argv[2])))
