"""The settings by which a pool's containers are started and stopped, changed between two deployments.

They stand in the pool's record, from which the scheduler takes them. The next deployment writes the record
anew from the code, and with it the settings that the code asks for.
"""

from dataclasses import replace
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire.autoscaling import GetAutoscaler, UpdateAutoscaler
from tidemill._wire.specs import Autoscaling, Pool
from tidemill.exception import ConflictError, NotFoundError
from tidemill_registry import checks, environments, outbox, publishing, records
from tidemill_registry.database import transaction
from tidemill_registry.schema import App, PoolRow


async def read(engine: AsyncEngine, workspace: str, request: GetAutoscaler) -> Autoscaling:
    """Return the settings of a pool. `NotFoundError`."""
    async with transaction(engine) as connection:
        return (await _pool(connection, workspace, request.pool)).spec.autoscaling


async def change(engine: AsyncEngine, workspace: str, request: UpdateAutoscaler) -> Autoscaling:
    """Change settings of a pool that serves its function, and return all.

    `NotFoundError`, `ConflictError`, `InvalidError`.
    """
    async with transaction(engine) as connection:
        found = await _pool(connection, workspace, request.pool)
        await publishing.locked_app(connection, workspace, found.app_id, "change the containers of")
        pool = await _pool(connection, workspace, request.pool)  # as it is now that nobody else changes it
        if pool.superseded:
            raise ConflictError(
                f"{pool.spec.name!r} is served by a newer version",
                hint="ask for the function without a version",
            )
        scaling = _merged(pool.spec.autoscaling, request)
        checks.check_autoscaling(scaling)
        record = records.encode(replace(pool, spec=replace(pool.spec, autoscaling=scaling)))
        await connection.execute(update(PoolRow).where(PoolRow.id == pool.id).values(record=record))
        await outbox.enqueue(connection, [outbox.put(pool.id, record)])
    return scaling


async def _pool(connection: AsyncConnection, workspace: str, pool: str) -> Pool:
    query = (
        select(PoolRow.record)
        .join(App, PoolRow.app_id == App.id)
        .where(PoolRow.id == pool, App.environment_id.in_(environments.of_workspace(workspace)))
    )
    record = await connection.scalar(query)
    if record is None:
        raise NotFoundError(f"there is no pool {pool!r}", hint="its app may have been stopped")
    return records.pool(record)


def _merged(scaling: Autoscaling, request: UpdateAutoscaler) -> Autoscaling:
    given: dict[str, Any] = {
        "min_containers": request.min_containers,
        "max_containers": request.max_containers,
        "buffer_containers": request.buffer_containers,
        "scaledown_window": request.scaledown_window,
    }
    return replace(scaling, **{name: value for name, value in given.items() if value is not None})
