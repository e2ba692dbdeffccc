"""The schedules of an app's functions as rows: brought to what its version, or its end, makes of them.

Beside them: the listing, and the comparison of what waits in TIMERS with what should.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, Text, any_, delete, literal, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill import schedule
from tidemill._bus.protocol import Refused
from tidemill._wire import coding, subjects
from tidemill._wire.schedules import Fired, Firing, ListSchedules, ScheduleInfo, ScheduleList
from tidemill._wire.specs import Pool
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.schedules import timer
from tidemill_registry import checks, environments, lookups, pages, schedules
from tidemill_registry.database import transaction
from tidemill_registry.outbox import Entry
from tidemill_registry.schedules import Kept
from tidemill_registry.schema import App, Deployment, Environment, Function, PoolRow, ScheduleRow


async def follow(
    connection: AsyncConnection, workspace: str, app_id: str, pools: Sequence[Pool], version: int
) -> Sequence[Entry]:
    """Write what it means for an app's schedules that these pools serve it; return what NATS must be told.

    Runs under the lock of the app's row. An app that stops is served by no pools.
    """
    before = await _standing(connection, app_id)
    scheduled = [pool for pool in pools if pool.spec.schedule is not None]
    if not before and not scheduled:
        return ()
    made = select(Deployment.created_at).where(Deployment.app_id == app_id, Deployment.version == version)
    at = await connection.scalar(made)
    assert at is not None
    changes = schedules.changes(workspace, before, scheduled, version, at.timestamp())
    if changes.removed:
        gone = ScheduleRow.id == any_(literal(list(changes.removed), ARRAY(Text)))
        await connection.execute(delete(ScheduleRow).where(gone))
    await _keep(connection, app_id, changes.kept)
    return changes.told


async def _standing(connection: AsyncConnection, app_id: str) -> list[Kept]:
    query = select(*_KEPT).where(ScheduleRow.app_id == app_id)
    return [Kept(*row) for row in await connection.execute(query)]


_KEPT = (
    ScheduleRow.id,
    ScheduleRow.function_id,
    ScheduleRow.record,
    ScheduleRow.version,
    ScheduleRow.pool_id,
)


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


# --- the listing


class _Cursor(NamedTuple):
    """Where a page of schedules ends."""

    app_id: str
    function: str


async def list_schedules(
    engine: AsyncEngine, bus: ServiceBus, workspace: str, request: ListSchedules
) -> ScheduleList:
    """Return a page of the schedules of apps that live, by app and function."""
    checks.check_limit(request.limit)
    query = _live().where(Environment.id.in_(environments.of_workspace(workspace)))
    if request.schedule:
        query = query.where(ScheduleRow.id == request.schedule)
    if after := pages.read(request.cursor, _Cursor):
        query = query.where(tuple_(App.id, Function.name) > tuple_(literal(after[0]), literal(after[1])))
    async with transaction(engine) as connection:
        if request.environment:
            environment = await environments.find(connection, workspace, request.environment)
            query = query.where(App.environment_id == environment)
        if request.app:
            found = await lookups.app_id(connection, workspace, request.app, request.environment or "main")
            query = query.where(App.id == found)
        query = query.order_by(App.id, Function.name).limit(request.limit + 1)
        rows = (await connection.execute(query)).all()
    infos = await asyncio.gather(*(_info(bus, row) for row in rows[: request.limit]))
    cursor = pages.after(rows, request.limit, lambda row: _Cursor(row.app_id, row.function))
    return ScheduleList(tuple(infos), cursor)


def _live() -> Select[tuple[Any, ...]]:
    """Return the query for the schedules of apps that live, with when their versions were made."""
    return (
        select(*_KEPT, App.id.label("app_id"), App.name.label("app_name"))
        .add_columns(Environment.name.label("environment"), Function.name.label("function"))
        .add_columns(Deployment.created_at.label("made"))
        .join(App, ScheduleRow.app_id == App.id)
        .join(Environment, App.environment_id == Environment.id)
        .join(Function, ScheduleRow.function_id == Function.id)
        .join(
            Deployment,
            (Deployment.app_id == ScheduleRow.app_id) & (Deployment.version == ScheduleRow.version),
        )
        .where(App.state != "stopped")
    )


async def _info(bus: ServiceBus, row: Row[tuple[Any, ...]]) -> ScheduleInfo:
    noted = await bus.bucket(streams.FIRINGS).get(row.id)
    fired = coding.decode(Fired, noted) if noted else None
    return ScheduleInfo(
        schedule_id=row.id,
        app_id=row.app_id,
        app_name=row.app_name,
        environment=row.environment,
        function=row.function,
        text=str(schedule.from_record(row.record)),
        next=schedules.upcoming(row.record, row.made.timestamp(), fired),
        last=fired.time if fired else None,
        last_call=fired.call if fired else "",
        function_id=row.function_id,
    )


# --- the comparison


async def reconcile(connection: AsyncConnection, bus: ServiceBus) -> int:
    """Make TIMERS hold what the tables say; return how many repairs that took. Runs with the outbox empty."""
    held = {
        subjects.schedule_of(stored.subject): stored
        async for stored in bus.read(streams.TIMERS.name, subjects.ALL_SCHEDULES)
    }
    query = _live().add_columns(PoolRow.record.label("pool")).join(PoolRow, ScheduleRow.pool_id == PoolRow.id)
    rows = {row.id: row for row in await connection.execute(query)}
    repairs = 0
    for name in held.keys() - rows.keys():
        repairs += await bus.purge(streams.TIMERS.name, held[name].subject)
    for name, row in rows.items():
        stored = held.get(name)
        if stored is None or coding.decode(Firing, stored.data).declared != row.record:
            repairs += await _set(bus, row)
    return repairs


async def _set(bus: ServiceBus, row: Row[tuple[Any, ...]]) -> int:
    """Set a timer that is not there, unless it has just fired: then whoever acts on that sets the next."""
    pool = coding.decode(Pool, row.pool)
    if await bus.last(streams.TIMERS.name, subjects.schedule_due(pool.workspace, row.id)):
        return 0
    kept = Kept(row.id, row.function_id, row.record, row.version, row.pool_id)
    wanted = timer(schedules.firing(kept, pool, row.made.timestamp()), time.time())
    try:
        await bus.store(wanted.subject, wanted.data, headers=wanted.headers)
    except Refused:  # its deployment was told so; what NATS lacks may be there at the next comparison
        return 0
    return 1
