"""The records of images: which exact versions their packages were resolved to, the first time."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._wire.images import GetResolution, PutResolution, Resolution
from tidemill.exception import InvalidError
from tidemill_registry.database import transaction
from tidemill_registry.schema import ImageRow

MAX_KEY = 64  # characters
MAX_SIZE = 4 << 20  # characters of a resolution


async def get_resolution(engine: AsyncEngine, _workspace: str, request: GetResolution) -> Resolution:
    """Return what a recipe was resolved to, if it was. Equal recipes of two workspaces have one record."""
    async with transaction(engine) as connection:
        layers = await connection.scalar(select(ImageRow.layers).where(ImageRow.key == request.key))
    return Resolution(None if layers is None else tuple(layers))


async def put_resolution(engine: AsyncEngine, workspace: str, request: PutResolution) -> Resolution:
    """Keep a resolution, unless there is one already; return the one that is kept.

    Raises:
        InvalidError: it is too large, or its key is none.
    """
    size = sum(map(len, request.layers))
    if not 0 < len(request.key) <= MAX_KEY or size > MAX_SIZE:
        raise InvalidError(f"not a resolution of an image: {len(request.layers)} layers, {size:,} characters")
    row = {"key": request.key, "workspace": workspace, "layers": list(request.layers)}
    async with transaction(engine) as connection:
        await connection.execute(insert(ImageRow).values(row).on_conflict_do_nothing())
    return await get_resolution(engine, workspace, GetResolution(request.key))
