"""How alembic reaches the database: asynchronously, in one transaction, one process at a time."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from tidemill_registry.schema import Base

# Replicas that start together migrate one after the other; the later ones find nothing to do.
LOCK = 0x7469646563686172


def run(connection: Connection) -> None:
    """Run what alembic was asked for, all of it or nothing."""
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        context.run_migrations()


async def connect() -> None:
    """Run on a connection of our own."""
    url = os.environ.get("TIDEMILL_DATABASE_URL")
    if not url:
        raise SystemExit("error: TIDEMILL_DATABASE_URL is not set")
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
            await connection.commit()
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("error: migrations run on a database, not into a script")

given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(connect())
