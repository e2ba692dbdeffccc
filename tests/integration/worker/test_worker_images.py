"""Images are environments, made once for each content."""

import asyncio
from pathlib import Path

from worker_stage import Stage

from tidemill import exception
from tidemill._wire import failure, ids
from tidemill._wire.scheduling import ContainerEvent
from tidemill._wire.specs import ImageSpec

BASE = ("debian_slim", {"python_version": None})


async def started(stage: Stage, image: ImageSpec, code: str = "def f():\n    pass") -> ContainerEvent:
    pool = await stage.pool(code, image=image)
    container = ids.new(ids.CONTAINER)
    assert (await stage.ask_to_place(pool, container)).accepted
    return await stage.event(container)


async def test_packages_of_an_image_can_be_imported(stage: Stage, wheels: Path) -> None:
    image = ImageSpec((BASE, ("pip_install", {"packages": ["tidemill-probe"], "find_links": str(wheels)})))
    pool = await stage.pool("import tidemill_probe\ndef f():\n    return tidemill_probe.ANSWER", image=image)
    await stage.place(pool)
    assert (await stage.result(await stage.call(pool, ()))).value == 42


async def test_a_package_without_a_wheel_is_built(stage: Stage, wheels: Path) -> None:
    install = {
        "packages": ["tidemill-source-probe"],
        "find_links": str(wheels),
        "extra_options": "--no-index",
    }
    code = "import tidemill_source_probe\ndef f():\n    return tidemill_source_probe.ANSWER"
    pool = await stage.pool(code, image=ImageSpec((BASE, ("pip_install", install))))
    await stage.place(pool)
    assert (await stage.result(await stage.call(pool, ()))).value == 43


async def test_an_image_is_made_once_however_many_ask(stage: Stage, wheels: Path, data: Path) -> None:
    layers = (
        BASE,
        ("uv_pip_install", {"packages": ["tidemill-probe"], "find_links": str(wheels), "build": "x"}),
    )
    before = images(data)
    events = await asyncio.gather(*(started(stage, ImageSpec(layers)) for _ in range(4)))
    assert {event.state for event in events} == {"started"}
    assert len(images(data) - before) == 1


async def test_for_an_image_without_packages_nothing_is_resolved(stage: Stage) -> None:
    event = await started(stage, ImageSpec((("debian_slim", {"build": ids.new(ids.IMAGE)}),)))
    assert event.state == "started"
    assert stage.resolutions == {}


def images(data: Path) -> set[str]:
    return {path.name for path in (data / "images").iterdir() if not path.name.startswith(".")}


async def test_a_package_that_is_not_there_is_told_with_the_last_words(stage: Stage, wheels: Path) -> None:
    image = ImageSpec(
        (BASE, ("pip_install", {"packages": ["tidemill-no-such-thing"], "extra_options": "--no-index"}))
    )
    event = await started(stage, image)
    assert (event.state, event.final) == ("failed", True)
    error = failure.to_exception(event.failure)
    assert isinstance(error, exception.ImageBuildError)
    assert "tidemill-no-such-thing" in str(error)


async def test_a_python_that_is_not_there_is_told_with_those_that_are(stage: Stage) -> None:
    event = await started(stage, ImageSpec((("debian_slim", {"python_version": "3.99"}),)))
    assert (event.state, event.final) == ("failed", True)
    assert "Python 3.99 is not on this worker: found 3.11" in event.reason


async def test_an_image_that_needs_a_root_is_refused_with_the_tier_that_has_one(stage: Stage) -> None:
    event = await started(stage, ImageSpec((BASE, ("apt_install", {"packages": ["curl"]}))))
    assert event.state == "failed"
    assert "Image.apt_install()" in event.reason
