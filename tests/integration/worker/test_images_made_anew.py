"""Images that made room and are needed again, while something waits that has them as they were."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox_stage import NEEDS
from worker_stage import Stage

from tidemill._wire import ids
from tidemill._wire.specs import ImageSpec, Pool

pytestmark = NEEDS

CODE = """
    def f():
        import tidemill_probe
        return tidemill_probe.__name__
"""


async def test_what_waits_with_an_image_that_was_removed_starts_no_container_of_the_new_one(
    alone: Stage, sandboxing: Callable[..., Any], wheels: Path, tmp_path: Path
) -> None:
    worker = sandboxing(TIDEMILL_DATA_DIR=str(tmp_path), TIDEMILL_WORKER_IMAGE_SPACE="1")
    await worker.serving()
    folder = tmp_path / "images"

    def there() -> set[str]:
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}

    async def pool(build: str, **spec: Any) -> Pool:
        base = ("debian_slim", {"python_version": None})
        layer = {"find_links": str(wheels), "extra_options": "--no-index", "build": build}
        image = ImageSpec((base, ("pip_install", {"packages": ["tidemill-probe"], **layer})))
        return await alone.pool(CODE, image=image, **spec)

    async def use(*pools: Pool) -> None:
        placed = await asyncio.gather(*map(alone.place, pools))
        for each in pools:
            assert (await alone.result(await alone.call(each, ()))).value == "tidemill_probe"
        for (container,) in placed:
            await alone.stop(container)
            await alone.event(container, "stopped")

    first = ids.new(ids.IMAGE)
    pools = [await pool(first), await pool(first, options={"enable_memory_snapshot": True})]
    await use(*pools)
    (made,) = there()
    size = folder / made / ".size"
    await alone.until(lambda: size.exists() and size.read_text())  # it is measured once
    size.write_text(str(5 << 20))
    await use(await pool(ids.new(ids.IMAGE)))
    await alone.until(lambda: made not in there())
    await use(*pools)
    assert made in there()
