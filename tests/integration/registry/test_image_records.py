"""What is kept of images."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine
from stored_records import Records, spec

from tidemill._wire import coding
from tidemill._wire.deploying import StopDeployed
from tidemill._wire.images import GetImage, GetResolution, PublishImage, PutResolution, Resolution
from tidemill._wire.secrets import PutAppSecret, RevealSecrets
from tidemill._wire.specs import ImageSpec, Pool
from tidemill.exception import InvalidError, NotFoundError, PermissionDeniedError
from tidemill.image import image_id
from tidemill_registry import image_recipes, images
from tidemill_registry.apps import Apps
from tidemill_registry.cipher import Keyring
from tidemill_registry.database import database_clock
from tidemill_registry.schema import PoolRow
from tidemill_registry.secrets import Secrets


async def test_the_first_resolution_of_an_image_stays(engine: AsyncEngine) -> None:
    assert await images.get_resolution(engine, "main", GetResolution("key")) == Resolution(None)
    first, second = PutResolution("key", ("a==1",)), PutResolution("key", ("a==2",))
    assert await images.put_resolution(engine, "main", first) == Resolution(("a==1",))
    assert await images.put_resolution(engine, "main", second) == Resolution(("a==1",))
    assert await images.get_resolution(engine, "main", GetResolution("key")) == Resolution(("a==1",))
    for wrong in (PutResolution("", ()), PutResolution("k", ("x" * (5 << 20),))):
        with pytest.raises(InvalidError):
            await images.put_resolution(engine, "main", wrong)


async def test_secrets_of_a_build_are_revealed_to_it_and_to_no_other(
    engine: AsyncEngine, records: Records
) -> None:
    secrets = Secrets(engine, Keyring([b"1" * 32]), database_clock)
    kept = await secrets.put_unnamed(records.workspace, PutAppSecret({"TOKEN": "t"}))
    image = ImageSpec((("debian_slim", {}),), secrets=(kept.secret_id,))
    deployed = await records.deploy(spec("builds", image=image), spec("other"))
    request = RevealSecrets(deployed.handles["builds"].pool, (kept.secret_id,))
    assert (await secrets.reveal(records.workspace, request)).values == {"TOKEN": "t"}
    request = RevealSecrets(deployed.handles["other"].pool, (kept.secret_id,))
    with pytest.raises(PermissionDeniedError):
        await secrets.reveal(records.workspace, request)


async def test_names_stand_for_what_they_stood_for_when_functions_were_published(
    engine: AsyncEngine, records: Records
) -> None:
    async def published(*layers: Any, name: str = "app", **fields: Any) -> ImageSpec:
        deployed = await records.deploy(spec(image=ImageSpec(layers, **fields)), name=name)
        query = select(PoolRow.record).where(PoolRow.id == deployed.handles["f"].pool)
        async with engine.connect() as connection:
            return coding.decode(Pool, await connection.scalar(query)).spec.image

    secrets = Secrets(engine, Keyring([b"1" * 32]), database_clock)
    first, second = [
        (await secrets.put_unnamed(records.workspace, PutAppSecret({"TOKEN": value}))).secret_id
        for value in "ab"
    ]
    base = await published(
        ("debian_slim", {}), ("pip_install", {"packages": ["a"], "secrets": [0]}), secrets=(first,)
    )
    request = PublishImage(image_id(base), "base", "main")
    assert (await image_recipes.publish(engine, records.workspace, request)).image == image_id(base)
    named, more = ("from_name", {"name": "base:latest"}), ("run_commands", {"commands": [], "secrets": [0]})
    made = await published(named, more, name="other", secrets=(second,))
    assert made.layers == (*base.layers, ("run_commands", {"commands": [], "secrets": [1]}))
    assert made.secrets == (first, second)

    newer = await published(("debian_slim", {"build": "x"}), name="newer")
    await image_recipes.publish(engine, records.workspace, PublishImage(image_id(newer), "base", "main"))
    assert (await published(named, name="third")).layers == newer.layers
    found = await image_recipes.get(engine, records.workspace, GetImage("", "base", "main"))
    assert found.image == image_id(newer)
    for unknown in (
        GetImage("im-none"),
        GetImage("im-\0"),
        GetImage("", "base:v2", "main"),
        GetImage(image_id(base)),
    ):
        workspace = "elsewhere" if unknown.image == image_id(base) else records.workspace
        with pytest.raises(NotFoundError):
            await image_recipes.get(engine, workspace, unknown)
    with pytest.raises(InvalidError, match="not a name for an image"):
        await image_recipes.get(engine, records.workspace, GetImage("", "a b", "main"))


async def test_what_an_image_with_a_name_was_made_of_stays(engine: AsyncEngine, records: Records) -> None:
    secrets = Secrets(engine, Keyring([b"1" * 32]), database_clock)
    kept, gone = [
        (await secrets.put_unnamed(records.workspace, PutAppSecret({"TOKEN": value}))).secret_id
        for value in "cd"
    ]
    images = [ImageSpec((("debian_slim", {"build": each}),), secrets=(each,)) for each in (kept, gone)]
    await records.deploy(*(spec(f"f{n}", image=image) for n, image in enumerate(images)))
    await image_recipes.publish(
        engine, records.workspace, PublishImage(image_id(images[0]), "kept:v1", "main")
    )
    await Apps(engine, database_clock).stop_named(records.workspace, StopDeployed("app"))
    await records.sql("UPDATE secrets SET updated_at = now() - interval '2 days'")
    await secrets.collect()
    query = "SELECT array_agg(id) FROM secrets WHERE id IN (:kept, :gone)"
    assert await records.sql(query, kept=kept, gone=gone) == [kept]


async def test_images_that_nothing_needs_are_forgotten_after_a_month(
    engine: AsyncEngine, records: Records
) -> None:
    base, rest = ("debian_slim", {}), ("env", {"vars": {"A": "1"}})
    images = {
        "base": ImageSpec((base,)),
        "deployed": ImageSpec((base, rest)),
        "named": ImageSpec((base, ("workdir", {"path": "/n"}))),
        "unused": ImageSpec((base, ("workdir", {"path": "/u"}))),
        "new": ImageSpec((base, ("workdir", {"path": "/new"}))),
    }
    for name, image in images.items():
        await records.deploy(spec(image=image), name=name)
    request = PublishImage(image_id(images["named"]), "base", "main")
    await image_recipes.publish(engine, records.workspace, request)
    pools = "DELETE FROM pools USING apps WHERE apps.id = app_id AND apps.name = :name AND record LIKE :mine"
    mine = f"%{records.workspace}%".encode()
    for name in images.keys() - {"deployed"}:
        await records.sql(pools, name=name, mine=mine)
    aged = "UPDATE image_recipes SET created_at = now() - interval '31 days'"
    fresh = " WHERE workspace = :workspace AND image <> :image"
    await records.sql(aged + fresh, workspace=records.workspace, image=image_id(images["new"]))
    await image_recipes.forget(engine, database_clock)
    kept = "SELECT array_agg(image) FROM image_recipes WHERE workspace = :workspace"
    found = await records.sql(kept, workspace=records.workspace)
    assert set(found) == {image_id(image) for name, image in images.items() if name != "unused"}
