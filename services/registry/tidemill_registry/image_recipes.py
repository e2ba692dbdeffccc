"""Images that a workspace has used: found by their id or by a name, and built on.

A recipe that begins with such an image (`from_id`, `from_name`) becomes one that begins as that image does,
before its functions are published: what a name stands for is settled then.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, delete, exists, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import coding
from tidemill._wire.images import GetImage, ImageInfo, PublishImage
from tidemill._wire.specs import FunctionSpec, ImageSpec, Pool
from tidemill.exception import InvalidError, NotFoundError
from tidemill.image import image_id
from tidemill_registry import environments, records
from tidemill_registry.database import Clock, transaction
from tidemill_registry.schema import ImageName, PoolRow, RecipeRow

NAMED = frozenset(("from_id", "from_name"))
LATEST = "latest"
KEPT_DAYS = 30  # that an image is found by its id, once no deployment and no name has it
FORGET_AT_ONCE = 1_000
FETCHED = 200  # records of pools that are looked at together
OVERLAP = timedelta(hours=1)  # of the two looks for who has an image: deployments take less
_NAME = re.compile(r"([A-Za-z0-9_.-]{1,64})(?::([A-Za-z0-9_.-]{1,64}))?")


class Found(NamedTuple):
    """An image that is there: its id, its recipe, the app that used it first, and when."""

    image: str
    record: bytes
    app_id: str
    created: float


async def get(engine: AsyncEngine, workspace: str, request: GetImage) -> ImageInfo:
    """Return what is known of an image.

    Raises:
        NotFoundError: the workspace has used none of this id, or has none of this name.
    """
    async with transaction(engine) as connection:
        return _info(await _find(connection, workspace, request))


async def publish(engine: AsyncEngine, workspace: str, request: PublishImage) -> ImageInfo:
    """Give an image a name; one that had it is found by its id only."""
    name = full_name(request.name)
    async with transaction(engine) as connection:
        found = await _find(connection, workspace, GetImage(request.image))
        environment = await environments.find(connection, workspace, request.environment, hold=True)
        made = upsert(ImageName).values(
            environment_id=environment, name=name, workspace=workspace, image=request.image
        )
        changed = {"image": made.excluded.image, "published_at": func.now()}
        await connection.execute(
            made.on_conflict_do_update(index_elements=["environment_id", "name"], set_=changed)
        )
    return _info(found)


async def settle(
    connection: AsyncConnection, workspace: str, environment: str, functions: Sequence[FunctionSpec]
) -> Sequence[FunctionSpec]:
    """Return functions whose recipes begin with no image that was used before."""
    if not any(_named(spec.image) for spec in functions):
        return functions
    settled = []
    for spec in functions:
        image = spec.image
        if base := _named(image):
            operation, arguments = base
            wanted = GetImage(
                arguments["image"] if operation == "from_id" else "",
                arguments.get("name", ""),
                arguments.get("environment") or environment,
            )
            found = await _find(connection, workspace, wanted)
            image = on_base(image, coding.decode(ImageSpec, found.record))
        settled.append(replace(spec, image=image))
    return settled


async def keep(connection: AsyncConnection, pools: Iterable[Pool]) -> None:
    """Remember the recipes of new pools."""
    rows = {
        (pool.workspace, image_id(pool.spec.image)): {
            "workspace": pool.workspace,
            "image": image_id(pool.spec.image),
            "record": coding.encode(pool.spec.image),
            "app_id": pool.app_id,
        }
        for pool in pools
    }
    if rows:
        made = upsert(RecipeRow)
        statement = made.on_conflict_do_update(  # the row is held: who forgets it sees these pools first
            index_elements=["workspace", "image"], set_={"app_id": RecipeRow.app_id}
        )
        await connection.execute(statement, [rows[key] for key in sorted(rows)])  # in one order: no deadlock


async def forget(engine: AsyncEngine, clock: Clock) -> int:
    """Delete some recipes that nothing has needed for long; return how many. Replicas share it.

    What a deployed image begins with is needed too: it may have been begun with by its id.
    """
    old = RecipeRow.created_at < clock() - func.make_interval(0, 0, 0, KEPT_DAYS)
    unnamed = select(RecipeRow.workspace, RecipeRow.image).where(old, ~exists().where(_has_name()))
    async with transaction(engine) as connection:
        now = (await connection.execute(select(func.now()))).scalar_one()
        found = {(row.workspace, row.image) for row in await connection.execute(unnamed)}
        left = sorted(found - await _needed(connection, select(PoolRow.record)) if found else ())
    if not left:
        return 0
    chosen = tuple_(RecipeRow.workspace, RecipeRow.image).in_(left[:FORGET_AT_ONCE])
    async with transaction(engine) as connection:
        query = unnamed.where(chosen).with_for_update(skip_locked=True)
        held = {(row.workspace, row.image) for row in await connection.execute(query)}
        lately = select(PoolRow.record).where(PoolRow.created_at > now - OVERLAP)
        gone = sorted(held - await _needed(connection, lately))
        these = tuple_(RecipeRow.workspace, RecipeRow.image).in_(gone)
        await connection.execute(delete(RecipeRow).where(these))
    return len(gone)


async def _needed(connection: AsyncConnection, query: Select[bytes]) -> set[tuple[str, str]]:
    """Return the images that pools have, and those that theirs begin with."""
    found: set[tuple[str, str]] = set()
    async for record in await connection.stream_scalars(query.execution_options(yield_per=FETCHED)):
        pool = records.pool(record)
        layers = pool.spec.image.layers
        if (pool.workspace, image_id(pool.spec.image)) not in found:
            found |= {(pool.workspace, image_id(ImageSpec(layers[:end]))) for end in range(len(layers) + 1)}
    return found


def _has_name() -> ColumnElement[bool]:
    return (ImageName.workspace == RecipeRow.workspace) & (ImageName.image == RecipeRow.image)


def named() -> Select[bytes]:
    """Return the query for the recipes of images that have a name: what they were made of stays."""
    return select(RecipeRow.record).where(exists().where(_has_name()))


def on_base(image: ImageSpec, base: ImageSpec) -> ImageSpec:
    """Return a recipe whose first layer is replaced by the image that it names."""
    shifted = tuple(
        (operation, _shifted(arguments, len(base.secrets), len(base.functions)))
        for operation, arguments in image.layers[1:]
    )
    return replace(
        image,
        layers=(*base.layers, *shifted),
        attached=(*base.attached, *image.attached),
        secrets=(*base.secrets, *image.secrets),
        functions=(*base.functions, *image.functions),
    )


def full_name(name: str) -> str:
    """Return a name with its tag, `latest` where it has none; `InvalidError` if it cannot be one."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidError(
            f"not a name for an image: {name[:200]!r}",
            hint="names are up to 64 letters, digits, '-', '_' and '.', with a tag such as 'name:v2'",
        )
    return f"{match[1]}:{match[2] or LATEST}"


def _named(image: ImageSpec) -> tuple[str, Any] | None:
    return image.layers[0] if image.layers and image.layers[0][0] in NAMED else None


def _shifted(arguments: Mapping[str, Any], secrets: int, functions: int) -> dict[str, Any]:
    """Return a layer that names secrets and functions by their numbers behind those of its base."""
    found = dict(arguments)
    for name in ("secrets", "registry_secrets"):
        if name in found:
            found[name] = [number + secrets for number in found[name]]
    if "function" in found:
        found["function"] = {**found["function"], "number": found["function"]["number"] + functions}
    return found


async def _find(connection: AsyncConnection, workspace: str, request: GetImage) -> Found:
    created = func.extract("epoch", RecipeRow.created_at).label("created")
    query = select(RecipeRow.image, RecipeRow.record, RecipeRow.app_id, created)
    query = query.where(RecipeRow.workspace == workspace)
    if request.image:
        told = f"there is no image {request.image[:100]!r}"
        query = query.where(RecipeRow.image == request.image)
    else:
        name = full_name(request.name)
        told = f"no image is published as {name!r} in the environment {request.environment!r}"
        environment = await environments.find(connection, workspace, request.environment)
        query = query.join(ImageName, _has_name()).where(
            ImageName.environment_id == environment, ImageName.name == name
        )
    storable = "\0" not in request.image
    row = (await connection.execute(query)).first() if storable else None
    if row is None:
        raise NotFoundError(told, hint="build it: image.build(app), and .publish(name) to name it")
    image, record, app_id, when = row
    return Found(image, record, app_id, float(when))


def _info(found: Found) -> ImageInfo:
    return ImageInfo(found.image, found.app_id, found.created)
