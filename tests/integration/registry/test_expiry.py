"""Ephemeral apps end when their client does: the real tables, and a clock that jumps."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import ColumnElement, literal, text
from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._wire.apps import CreateApp, PublishFunctions
from tidemill._wire.specs import FunctionSpec, Source
from tidemill.exception import ConflictError
from tidemill_registry import environments, publishing
from tidemill_registry.apps import RETENTION_DAYS, Apps
from tidemill_registry.database import new_engine

WORKSPACE = "main"


class Clock:
    """Time stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> ColumnElement[datetime]:
        return literal(self.now)

    def advance(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def engine(database: Any) -> AsyncIterator[AsyncEngine]:
    engine = new_engine(database.url, 10)
    yield engine
    await engine.dispose()


@pytest.fixture
async def apps(engine: AsyncEngine, clock: Clock) -> Apps:
    await environments.prepare(engine, WORKSPACE)
    return Apps(engine, clock)


async def create(apps: Apps, state: str = "ephemeral") -> str:
    return (await apps.create(WORKSPACE, CreateApp("app", "", state))).app_id


async def count(engine: AsyncEngine, query: str) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text(f"SELECT count(*) FROM {query}")) or 0)


async def test_an_app_without_a_heartbeat_for_a_minute_is_stopped(apps: Apps, clock: Clock) -> None:
    app_id = await create(apps)
    clock.advance(seconds=60)
    assert await apps.expire() == []
    clock.advance(seconds=0.001)
    assert await apps.expire() == [app_id]
    assert await apps.expire() == []
    with pytest.raises(ConflictError, match="no heartbeat for 60 s"):
        await apps.heartbeat(WORKSPACE, app_id)


async def test_a_heartbeat_gives_another_minute(apps: Apps, clock: Clock) -> None:
    app_id = await create(apps)
    for _ in range(5):
        clock.advance(seconds=59)
        await apps.heartbeat(WORKSPACE, app_id)
    clock.advance(seconds=59)
    assert await apps.expire() == []
    clock.advance(seconds=2)
    assert await apps.expire() == [app_id]


@pytest.mark.parametrize("state", ["detached", "deployed"])
async def test_apps_that_outlive_their_client_need_no_heartbeat(apps: Apps, clock: Clock, state: str) -> None:
    await create(apps, state)
    clock.advance(days=1)
    assert await apps.expire() == []


async def test_an_expired_app_takes_its_pools_along(apps: Apps, clock: Clock, engine: AsyncEngine) -> None:
    app_id = await create(apps)
    spec = FunctionSpec("f", Source(module="m", qualname="f"))
    await publishing.publish(engine, WORKSPACE, PublishFunctions(app_id, (spec,)), clock)
    clock.advance(minutes=2)
    await apps.expire()
    assert await count(engine, "outbox WHERE kind = 'put' AND target = 'pools'") == 1
    assert await count(engine, "outbox WHERE kind = 'delete' AND target = 'pools'") == 1
    assert await count(engine, "outbox WHERE kind = 'event' AND target LIKE 'tm.events.main.app.%'") == 2


async def test_replicas_that_sweep_at_once_stop_each_app_once(
    apps: Apps, clock: Clock, engine: AsyncEngine
) -> None:
    created = {await create(apps) for _ in range(30)}
    clock.advance(minutes=2)
    replicas = [Apps(engine, clock) for _ in range(4)]
    swept = await asyncio.gather(*(replica.expire() for replica in replicas))
    swept.append(await apps.expire())
    stopped = [app_id for part in swept for app_id in part]
    assert sorted(stopped) == sorted(created)
    assert await count(engine, "outbox WHERE kind = 'event'") == 30


async def test_what_was_stopped_long_ago_is_forgotten(apps: Apps, clock: Clock, engine: AsyncEngine) -> None:
    await apps.stop(WORKSPACE, await create(apps), "")
    running = await create(apps, "detached")
    clock.advance(days=RETENTION_DAYS - 1)
    assert await apps.forget() == 0
    clock.advance(days=2)
    assert await apps.forget() == 1
    assert await count(engine, "apps") == 1
    await apps.heartbeat(WORKSPACE, running)
