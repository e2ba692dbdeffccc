"""Images that a workspace has used: found by their id or by a name, and built on.

A recipe that begins with such an image (`from_id`, `from_name`) becomes one that begins as that image does,
before its functions are published: what a name stands for is settled then.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Select, exists, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import coding
from tidemill._wire.images import GetImage, ImageInfo, PublishImage
from tidemill._wire.specs import FunctionSpec, ImageSpec, Pool
from tidemill.exception import InvalidError, NotFoundError
from tidemill.image import image_id
from tidemill_registry import environments
from tidemill_registry.database import transaction
from tidemill_registry.schema import ImageName, RecipeRow

NAMED = frozenset(("from_id", "from_name"))
LATEST = "latest"
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
        statement = upsert(RecipeRow).on_conflict_do_nothing()
        await connection.execute(statement, [rows[key] for key in sorted(rows)])  # in one order: no deadlock


def named() -> Select[bytes]:
    """Return the query for the recipes of images that have a name: what they were made of stays."""
    has_name = (ImageName.workspace == RecipeRow.workspace) & (ImageName.image == RecipeRow.image)
    return select(RecipeRow.record).where(exists().where(has_name))


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
        named = (ImageName.workspace == RecipeRow.workspace) & (ImageName.image == RecipeRow.image)
        query = query.join(ImageName, named).where(
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
