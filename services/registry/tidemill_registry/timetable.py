"""The schedules of an app's functions as rows: brought to what its version, or its end, makes of them."""

from collections.abc import Sequence

from sqlalchemy import Text, any_, delete, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from tidemill._wire.control import Pool
from tidemill_registry import schedules
from tidemill_registry.outbox import Entry
from tidemill_registry.schedules import Kept
from tidemill_registry.schema import ScheduleRow


async def follow(
    connection: AsyncConnection, app_id: str, pools: Sequence[Pool], version: int
) -> Sequence[Entry]:
    """Write what it means for an app's schedules that these pools serve it; return what NATS must be told.

    Runs under the lock of the app's row. An app that stops is served by no pools.
    """
    before = await _standing(connection, app_id)
    scheduled = [pool for pool in pools if pool.spec.schedule is not None]
    if not before and not scheduled:
        return ()
    changes = schedules.changes(before, scheduled, version)
    if changes.removed:
        gone = ScheduleRow.id == any_(literal(list(changes.removed), ARRAY(Text)))
        await connection.execute(delete(ScheduleRow).where(gone))
    await _keep(connection, app_id, changes.kept)
    return changes.told


async def _standing(connection: AsyncConnection, app_id: str) -> list[Kept]:
    query = select(
        ScheduleRow.id,
        ScheduleRow.function_id,
        ScheduleRow.record,
        ScheduleRow.version,
        ScheduleRow.pool_id,
    )
    return [Kept(*row) for row in await connection.execute(query.where(ScheduleRow.app_id == app_id))]


async def _keep(connection: AsyncConnection, app_id: str, kept: Sequence[Kept]) -> None:
    if not kept:
        return
    statement = upsert(ScheduleRow)
    written = {name: statement.excluded[name] for name in ("record", "version", "pool_id")}
    rows = [
        {
            "id": one.id,
            "app_id": app_id,
            "function_id": one.function_id,
            "record": dict(one.record),
            "version": one.version,
            "pool_id": one.pool,
        }
        for one in kept
    ]
    await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=written), rows)
