"""The tags of apps: replaced as a whole, and read."""

from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._wire.deploying import GetTags, SetTags, Tags
from tidemill_registry import checks, lookups, publishing
from tidemill_registry.database import transaction
from tidemill_registry.schema import App


async def replace(engine: AsyncEngine, workspace: str, request: SetTags) -> Tags:
    """Make these the tags of an app; the ones it had go."""
    checks.check_tags(request.tags)
    async with transaction(engine) as connection:
        app_id = await lookups.app_id(connection, workspace, request.app, request.environment)
        app = await publishing.locked_app(connection, workspace, app_id, "tag")
        await lookups.check_seen(connection, workspace, app_id, request.seen)
        await connection.execute(update(App).where(App.id == app.id).values(tags=request.tags))
    return Tags(request.tags)


async def read(engine: AsyncEngine, workspace: str, request: GetTags) -> Tags:
    """Return the tags of an app."""
    async with transaction(engine) as connection:
        app_id = await lookups.app_id(connection, workspace, request.app, request.environment)
        tags: Mapping[str, str] | None = await connection.scalar(select(App.tags).where(App.id == app_id))
    return Tags(dict(tags or {}))
