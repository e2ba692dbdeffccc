"""How long versions of an app stay callable, and how long they are told of.

A version keeps its pools as long as it is among the newest 100 of its app, and for a week after it was
superseded; the newest 1,000 at most. What goes is told to NATS like a stopped app's pools, so that calls
which still wait for it end. The records of the newest 10,000 versions are listed.
"""

from sqlalchemy import ColumnElement, and_, delete, exists, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import InstrumentedAttribute, aliased

from tidemill_registry import outbox, siblings
from tidemill_registry.database import Clock, transaction
from tidemill_registry.decisions import KEPT_DAYS, KEPT_RECORDS, KEPT_VERSIONS, MAX_KEPT_VERSIONS
from tidemill_registry.schema import App, Deployment, DeploymentFunction, Function, PoolRow

APPS_AT_ONCE = 20

_Id = ColumnElement[str] | InstrumentedAttribute[str]
_Version = ColumnElement[int] | InstrumentedAttribute[int]


async def trim(engine: AsyncEngine, clock: Clock) -> int:
    """Forget old versions of some apps that have too many; return how many pools went. Replicas share it."""
    count = 0
    async with transaction(engine) as connection:
        for app_id, version in await _overfull(connection, clock):
            too_old = _too_old(literal(app_id), literal(version), clock)
            old_rows = delete(DeploymentFunction).where(too_old).returning(DeploymentFunction.version)
            versions = await connection.scalars(old_rows)
            await outbox.enqueue(connection, siblings.gone(app_id, versions))
            count += await _drop_unused(connection, app_id)
            old = Deployment.version <= version - KEPT_RECORDS
            await connection.execute(delete(Deployment).where(Deployment.app_id == app_id, old))
    return count


async def _overfull(connection: AsyncConnection, clock: Clock) -> list[tuple[str, int]]:
    """Return apps, their rows locked, of which a version is to be forgotten."""
    served = exists().where(_too_old(App.id, App.version, clock))
    query = select(App.id, App.version).where(App.version > KEPT_VERSIONS, App.state != "stopped", served)
    rows = await connection.execute(query.limit(APPS_AT_ONCE).with_for_update(skip_locked=True))
    return [(row.id, row.version) for row in rows]


def _too_old(app_id: _Id, version: _Version, clock: Clock) -> ColumnElement[bool]:
    """Return the condition that a row of `deployment_functions` belongs to a version that is to go."""
    following = aliased(Deployment)
    superseded = following.created_at < clock() - func.make_interval(0, 0, 0, KEPT_DAYS)
    long_ago = exists().where(
        following.app_id == DeploymentFunction.app_id,
        following.version == DeploymentFunction.version + 1,
        superseded,
    )
    return and_(
        DeploymentFunction.app_id == app_id,
        DeploymentFunction.version <= version - KEPT_VERSIONS,
        or_(long_ago, DeploymentFunction.version <= version - MAX_KEPT_VERSIONS),
    )


async def _drop_unused(connection: AsyncConnection, app_id: str) -> int:
    """Delete the pools that no kept version has, and functions without any; return how many pools."""
    used = exists().where(DeploymentFunction.pool_id == PoolRow.id)
    old = PoolRow.app_id == app_id, PoolRow.superseded_at.is_not(None), ~used
    variants = delete(PoolRow).where(PoolRow.variant_of.in_(select(PoolRow.id).where(*old)))
    pools = list(await connection.scalars(variants.returning(PoolRow.id)))
    pools += await connection.scalars(delete(PoolRow).where(*old).returning(PoolRow.id))
    await outbox.enqueue(connection, [outbox.remove(pool) for pool in pools])
    alive = exists().where(PoolRow.function_id == Function.id)
    await connection.execute(delete(Function).where(Function.app_id == app_id, ~alive))
    return len(pools)
