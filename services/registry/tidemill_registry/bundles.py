"""Code in the object store: it goes when no version that can be called refers to it any more.

    list what is old  ->  strike out what a pool or named image has  ->  remove the rest, as it was seen

Who deploys writes the record of code that is there already anew once it is some hours old. So what is old
here was not asked for by a deployment that is under way; and what is asked for while this works has a newer
record than the one that was seen, and stays.
"""

import re
from collections.abc import AsyncIterator

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._bus import blobs
from tidemill._bus.protocol import Bus
from tidemill_registry import image_recipes
from tidemill_registry.database import transaction
from tidemill_registry.environments import of_workspace
from tidemill_registry.schema import App, PoolRow, RecipeRow

UNUSED = 86_400.0  # seconds since it was last asked for, before which nothing goes; `blobs.FRESH` is less
MOST = 1_000  # that go at once
FETCHED = 200  # records of pools that are looked at together

# Code is named by its SHA-256. Overlapping: a digest may stand behind other characters of its alphabet.
_NAME = re.compile(r"[0-9a-f]{64}")
_NAMES = re.compile(rb"(?=([0-9a-f]{64}))")


async def collect(engine: AsyncEngine, bus: Bus, workspace: str, now: float) -> int:
    """Remove a workspace's code that nothing refers to; return how many pieces that were.

    Raises:
        BusError: NATS does not answer. What is left goes the next time.
    """
    found = blobs.all_named(bus, workspace)
    old = {one.name: one async for one in found if one.time < now - UNUSED and _NAME.fullmatch(one.name)}
    if not old:
        return 0
    async for record in _records(engine, workspace):
        for name in _NAMES.findall(record):
            old.pop(name.decode(), None)
    return sum([await blobs.delete_named(bus, workspace, one) for one in list(old.values())[:MOST]])


async def _records(engine: AsyncEngine, workspace: str) -> AsyncIterator[bytes]:
    """Yield what is recorded of all pools whose app lives, and of all images that have a name.

    Wherever it names code, that is in use.
    """
    query = (
        select(PoolRow.record, PoolRow.served_spec)
        .join(App, PoolRow.app_id == App.id)
        .where(App.state != "stopped", App.environment_id.in_(of_workspace(workspace)))
        .execution_options(yield_per=FETCHED)
    )
    async with transaction(engine) as connection:
        async for record, served in await connection.stream(query):
            yield record
            yield served or b""
        images = image_recipes.named().where(RecipeRow.workspace == workspace)
        for record in await connection.scalars(images):
            yield record
