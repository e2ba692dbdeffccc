"""Bringing the schema to a revision."""

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill_registry.revision import HEAD, scripts


async def current(engine: AsyncEngine) -> str | None:
    """Return the database's revision, or None for an empty one."""
    async with engine.connect() as connection:
        if await connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
            return None
        revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        return revision


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Go up to `revision` under a lock: of several callers one works, the others wait."""
    if revision in ("head", HEAD) and await current(engine) == HEAD:
        return
    await _run(engine, "upgrade", revision)


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Go down to `revision` (`base`: nothing is left)."""
    await _run(engine, "downgrade", revision)


async def _run(engine: AsyncEngine, direction: str, revision: str) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(_alembic, direction, revision)
        await connection.commit()


def _alembic(connection: Connection, direction: str, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    getattr(command, direction)(config, revision)
