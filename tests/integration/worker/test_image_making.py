"""How images of Python packages are made: resolved once, told aloud, whole or not at all, within a budget."""

import glob
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from package_stage import all_free
from worker_stage import WORKSPACE, Stage

from tidemill import _source
from tidemill._bus import blobs
from tidemill._wire import ids
from tidemill._wire.scheduling import WorkerState
from tidemill._wire.specs import ImageSpec

PATIENCE = 60.0  # seconds for what a busy machine may take
BASE = ("debian_slim", {"python_version": None})


def probe(wheels: Path, build: str = "") -> tuple[str, dict[str, Any]]:
    layer = {"packages": ["tidemill-probe"], "find_links": str(wheels), "extra_options": "--no-index"}
    return ("pip_install", {**layer, **({"build": build} if build else {})})


async def test_a_recipe_is_resolved_once_and_its_build_is_heard(stage: Stage, wheels: Path) -> None:
    code = """
        import tidemill_probe, os
        def f():
            return tidemill_probe.__file__, os.environ["MODAL_IMAGE_ID"]
        """
    pool = await stage.pool(code, image=ImageSpec((BASE, probe(wheels, ids.new(ids.IMAGE)))))
    (container,) = await stage.place(pool)
    file, image_id = (await stage.result(await stage.call(pool, ()))).value
    (layers,) = stage.resolutions.values()
    assert layers[0].startswith("tidemill-probe==1.0 \\\n    --hash=sha256:")
    assert "Installed 1 package" in stage.text(container)
    assert image_id.startswith("im-")
    compiled = Path(file).parent / "__pycache__" / "tidemill_probe.cpython-311.pyc"
    assert compiled.stat().st_nlink > 1  # it was compiled where uv keeps it


async def test_every_worker_makes_what_was_resolved_first(stage: Stage, wheels: Path) -> None:
    image = ImageSpec((BASE, probe(wheels, ids.new(ids.IMAGE))))
    text = "def f():\n    import importlib.metadata as m\n    return [d.name for d in m.distributions()]"
    pool = await stage.pool(text, image=image)

    class Settled(dict[str, tuple[str, ...]]):
        """Another worker was faster."""

        def get(self, key: str, default: Any = None) -> Any:
            return ("# nothing at all\n",)

    stage.resolutions = Settled()
    await stage.place(pool)
    names = (await stage.result(await stage.call(pool, ()))).value
    assert "tidemill-probe" not in names


async def test_a_layer_that_fails_is_told_by_its_number(stage: Stage, wheels: Path) -> None:
    wrong = ("uv_pip_install", {"packages": ["tidemill-none"], "extra_options": "--no-index"})
    pool = await stage.pool("def f(): pass", image=ImageSpec((BASE, probe(wheels), wrong)))
    await stage.ask_to_place(pool, container := ids.new(ids.CONTAINER))
    event = await stage.event(container, "failed")
    assert event.final
    assert "layer 3, Image.uv_pip_install(tidemill-none) failed" in event.reason
    assert "tidemill-none was not found" in event.reason
    assert "layer 3" in stage.text(container)


async def test_attached_files_lie_in_the_working_directory(stage: Stage) -> None:
    files = {"data.txt": b"words", "deep/run.sh": b"#!/bin/sh\n", "beside.py": b"VALUE = 7\n"}
    bundle = _source.pack(files, {"deep/run.sh": 0o755})
    digest = hashlib.sha256(bundle).hexdigest()
    await blobs.put_named(stage.bus, WORKSPACE, digest, bundle)
    code = """
        import os
        def f():
            import beside
            open("data.txt", "a").write("!")
            return open("data.txt").read(), os.access("deep/run.sh", os.X_OK), beside.VALUE
        """
    for _ in range(2):  # what the first one writes is not the second one's
        pool = await stage.pool(code, image=ImageSpec((BASE,), attached=(("/root", digest),)))
        await stage.place(pool)
        assert (await stage.result(await stage.call(pool, ()))).value == ("words!", True, 7)
    outside = await stage.pool(code, image=ImageSpec((BASE,), attached=(("/data", digest),)))
    await stage.ask_to_place(outside, container := ids.new(ids.CONTAINER))
    event = await stage.event(container, "failed")
    assert event.final
    assert "/data" in event.reason
    assert "process tier" in event.reason


async def test_images_that_nobody_uses_make_room(
    alone: Stage, launch_worker: Callable[..., Any], wheels: Path, tmp_path: Path
) -> None:
    worker = launch_worker(TIDEMILL_DATA_DIR=str(tmp_path), TIDEMILL_WORKER_IMAGE_SPACE="1")
    await worker.serving()
    folder = tmp_path / "images"

    def there() -> set[str]:
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}

    async def image(packages: list[str]) -> tuple[str, Any]:
        before = there()
        layer = ("pip_install", {**probe(wheels)[1], "packages": packages, "build": ids.new(ids.IMAGE)})
        pool = await alone.pool("def f(): return 1", image=ImageSpec((BASE, layer)))
        (container,) = await alone.place(pool)
        (made,) = there() - before
        return made, container

    async def grow(made: str) -> None:
        size = folder / made / ".size"
        await alone.until(lambda: size.exists() and size.read_text())  # it is measured once
        size.write_text(str(5 << 20))

    used, _ = await image(["tidemill-probe"])
    await grow(used)
    unused, container = await image(["tidemill-probe"])
    await grow(unused)
    await alone.stop(container)
    await alone.event(container, "stopped")
    newest, _ = await image(["tidemill-probe"])
    await alone.until(lambda: unused not in there())
    assert {used, newest} <= there()


async def test_a_worker_that_dies_in_the_middle_leaves_no_broken_image(
    alone: Stage, launch_worker: Callable[..., Any], wheels: Path, tmp_path: Path
) -> None:
    """See `test_interrupted_builds.py` for every other moment."""
    folder = tmp_path / "images"
    moment, made = ".benches/*/*/environment/lib/*/site-packages/*", "[!.]*/lib/python*/site-packages"

    def there(pattern: str) -> list[str]:
        return glob.glob(pattern, root_dir=folder)  # unlike that of a path, it bears that folders vanish

    worker = launch_worker(TIDEMILL_DATA_DIR=str(tmp_path))
    state = await alone.until(lambda: state_of(alone, worker.process.pid), PATIENCE)
    image = ImageSpec((BASE, probe(wheels, build=ids.new(ids.IMAGE))))
    pool = await alone.pool("def f(): pass", image=image)
    await alone.ask_to_place(pool, worker=state.worker)
    # Should the moment be over before it is seen, the image is whole.
    await alone.until(lambda: there(moment) or there(made), PATIENCE)
    await worker.kill()
    await alone.until(lambda: all_free(folder / ".benches"), PATIENCE)
    assert all((packages / "tidemill_probe.py").exists() for packages in folder.glob(made))
    worker = launch_worker(TIDEMILL_DATA_DIR=str(tmp_path))
    await worker.serving()
    assert not list(folder.glob(".*.*"))
    assert not list(folder.glob(".benches/[!.]*/[0-9]*"))


def state_of(stage: Stage, pid: int) -> WorkerState | None:
    return next((state for state in stage.states.values() if state.pid == pid), None)
