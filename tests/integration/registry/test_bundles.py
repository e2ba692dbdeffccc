"""Code in the object store, as long as anything refers to it and no longer."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._bus import blobs
from tidemill._wire.control import Done
from tidemill._wire.deploying import AppDeployed, DeployApp, StopDeployed
from tidemill._wire.images import ImageInfo, PublishImage
from tidemill._wire.specs import FunctionSpec, ImageSpec, Source
from tidemill.image import image_id
from tidemill_registry import bundles
from tidemill_registry.database import new_engine

Spec = Callable[..., FunctionSpec]


@pytest.fixture
async def tables(standing: Any) -> AsyncIterator[AsyncEngine]:
    engine = new_engine(standing.database.url, 2)
    yield engine
    await engine.dispose()


async def stored(tenant: Any, text: str) -> str:
    """Store code; return its name."""
    data = f"{tenant.workspace} {text}".encode()
    name = hashlib.sha256(data).hexdigest()
    await blobs.put_named(tenant.bus, tenant.workspace, name, data)
    return name


async def names(tenant: Any) -> set[str]:
    return {one.name async for one in blobs.all_named(tenant.bus, tenant.workspace)}


async def deploy(tenant: Any, *functions: FunctionSpec) -> None:
    await tenant.ask("deploy_app", DeployApp("app", functions), AppDeployed)


async def test_code_goes_when_nothing_that_can_be_called_refers_to_it(
    tenant: Any, tables: AsyncEngine
) -> None:
    first, second, pickled, attached, forgotten = [
        await stored(tenant, text) for text in ("first", "second", "pickled", "attached", "forgotten")
    ]
    image = ImageSpec(attached=(("/data", attached),))
    await deploy(tenant, FunctionSpec("f", Source(bundles=(first,), module="m", qualname="f"), image=image))
    await deploy(tenant, FunctionSpec("f", Source(bundles=(second,), serialized=pickled)))
    await blobs.put_named(tenant.bus, tenant.workspace, "kept by hand", b"not ours")

    async def collect(now: float) -> int:
        return await bundles.collect(tables, tenant.bus, tenant.workspace, now)

    tomorrow = time.time() + bundles.UNUSED + 3_600
    assert await collect(time.time()) == 0
    assert await collect(tomorrow) == 1
    used = {first, second, pickled, attached}
    assert await names(tenant) == used | {"kept by hand"}
    assert forgotten not in used
    await tenant.ask("stop_deployed", StopDeployed("app"), Done)
    assert await collect(tomorrow) == len(used)
    assert await names(tenant) == {"kept by hand"}


async def test_files_of_an_image_with_a_name_stay(tenant: Any, tables: AsyncEngine) -> None:
    named, unnamed = [await stored(tenant, text) for text in ("named", "unnamed")]
    images = [
        ImageSpec((("debian_slim", {"build": each}),), attached=(("/data", each),))
        for each in (named, unnamed)
    ]
    source = Source(module="m", qualname="f")
    await deploy(tenant, *(FunctionSpec(f"f{n}", source, image=image) for n, image in enumerate(images)))
    await tenant.ask("publish_image", PublishImage(image_id(images[0]), "named", "main"), ImageInfo)
    await tenant.ask("stop_deployed", StopDeployed("app"), Done)
    tomorrow = time.time() + bundles.UNUSED + 3_600
    await bundles.collect(tables, tenant.bus, tenant.workspace, tomorrow)
    assert named in await names(tenant)
    assert unnamed not in await names(tenant)
