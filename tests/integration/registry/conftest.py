"""A registry in a process of its own, and somebody who asks it; one that many tests share."""

import asyncio
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from stored_records import Records, spec

from tidemill._bus.protocol import Stored
from tidemill._wire import coding, subjects
from tidemill._wire.apps import (
    AppCreated,
    AppHeartbeat,
    CreateApp,
    FunctionsPublished,
    PublishFunctions,
    StopApp,
)
from tidemill._wire.control import Done, FunctionHandle, GetFunction
from tidemill._wire.specs import FunctionSpec, Pool
from tidemill_common import streams
from tidemill_common.bus.nats import connect
from tidemill_common.bus.protocol import ServiceBus
from tidemill_local.broker import Broker, BrokerSettings
from tidemill_local.database import Database
from tidemill_registry import environments
from tidemill_registry.database import new_engine

Answer = TypeVar("Answer")
WORKSPACE = "main"


class Client:
    """What the SDK does with the registry, without the SDK."""

    def __init__(self, bus: ServiceBus, workspace: str = WORKSPACE) -> None:
        self.bus = bus
        self.workspace = workspace

    async def ask(self, verb: str, request: object, kind: type[Answer]) -> Answer:
        answer = await self.bus.request(
            subjects.registry(self.workspace, verb), coding.encode(request), timeout=30.0
        )
        return coding.decode(kind, answer)

    async def create(self, name: str | None = None, state: str = "ephemeral") -> str:
        return (await self.ask("create_app", CreateApp(name, "a test", state), AppCreated)).app_id

    async def publish(self, app_id: str, *functions: FunctionSpec) -> dict[str, FunctionHandle]:
        request = PublishFunctions(app_id, functions)
        return (await self.ask("publish_functions", request, FunctionsPublished)).handles

    async def heartbeat(self, app_id: str) -> None:
        await self.ask("heartbeat", AppHeartbeat(app_id), Done)

    async def stop(self, app_id: str, reason: str = "") -> None:
        await self.ask("stop_app", StopApp(app_id, reason), Done)

    async def function(self, app: str, name: str, version: int | None = None) -> FunctionHandle:
        return await self.ask("get_function", GetFunction(app, name, version=version), FunctionHandle)

    async def pools(self) -> dict[str, Pool]:
        """Return what the bucket holds of the workspace."""
        items = await self.bus.bucket(streams.POOLS).items()
        pools = {key: coding.decode(Pool, value) for key, value in items.items()}
        return {key: pool for key, pool in pools.items() if pool.workspace == self.workspace}

    async def event(self, kind: str, app_id: str) -> Stored | None:
        """Return the last event of a kind that an app has."""
        stream, subject = subjects.events_stream(self.workspace), subjects.event(self.workspace, kind, app_id)
        return await self.bus.last(stream, subject)

    async def pool(self, pool_id: str) -> Pool | None:
        value = await self.bus.bucket(streams.POOLS).get(pool_id)
        return coding.decode(Pool, value) if value is not None else None

    async def siblings(self, pool: Pool) -> dict[str, FunctionHandle]:
        """Return what a pool's containers know of their app's functions."""
        key = streams.handles_key(pool.app_id, pool.handles_version)
        value = await self.bus.bucket(streams.HANDLES).get(key)
        assert value is not None
        return msgspec.msgpack.decode(value, type=dict[str, FunctionHandle])


@pytest.fixture(name="spec")
def make_spec() -> Callable[..., FunctionSpec]:
    return spec


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[ServiceBus]:
    bus = await connect(broker.url, "service", broker.settings.passwords["service"], timeout=20)
    await streams.apply(bus, WORKSPACE)
    yield bus
    await bus.close()


@pytest.fixture
async def client(bus: ServiceBus) -> Client:
    return Client(bus)


@pytest.fixture
def start_registry(launch: Callable[..., Any], database: Database) -> Callable[..., Awaitable[Any]]:
    """Start a registry and return it when it serves."""

    async def start(**environment: str) -> Any:
        registry = launch("-m", "tidemill_registry", TIDEMILL_DATABASE_URL=database.url, **environment)
        await registry.serving()
        return registry

    return start


# --- one registry for many tests, a workspace for each


@dataclass(frozen=True)
class Standing:
    """A registry with its servers. No test may stop any of them."""

    broker: Broker
    database: Database
    launch: Any

    async def start_registry(self) -> Any:
        """Start a replica and return it when it serves: it knows all workspaces that there are."""
        settings = {
            "TIDEMILL_DATABASE_URL": self.database.url,
            "TIDEMILL_PUBLIC_URL": "https://mill.example/",
        }
        registry = self.launch("-m", "tidemill_registry", **settings)
        await registry.serving()
        return registry

    async def connect(self, workspace: str = WORKSPACE) -> Client:
        bus = await connect(self.broker.url, "service", self.broker.settings.passwords["service"], timeout=20)
        return Client(bus, workspace)

    async def new_workspaces(self, count: int) -> list[str]:
        """Make workspaces; return their names."""
        names = [f"w{secrets.token_hex(6)}" for _ in range(count)]
        client, engine = await self.connect(), new_engine(self.database.url, 2)
        for name in names:
            await streams.apply_workspace(client.bus, name)
            await environments.prepare(engine, name)
        await engine.dispose()
        await client.bus.close()
        return names


@pytest.fixture(scope="session")
def standing(launcher: Any) -> Iterator[Standing]:
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        broker = Broker(BrokerSettings(Path(folder) / "nats"))
        database = Database(Path(folder) / "postgres", durable=False)
        asyncio.run(broker.start())
        asyncio.run(database.start())
        launch = launcher(Path(folder), broker)
        standing = Standing(broker, database, launch)
        asyncio.run(standing.start_registry())
        yield standing
        launch.close()
        database.kill()
        broker.kill()


@pytest.fixture
async def tenant(standing: Standing) -> AsyncIterator[Client]:
    """Somebody in a workspace of this test's own, on a registry that others have too."""
    (workspace,) = await standing.new_workspaces(1)
    tenant = await standing.connect(workspace)
    yield tenant
    await tenant.bus.close()


@pytest.fixture
async def start_replica(standing: Standing) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Start further replicas beside the one that stands."""
    started = []

    async def start() -> Any:
        started.append(await standing.start_registry())
        return started[-1]

    yield start
    for replica in started:
        replica.send(signal.SIGTERM)  # in order: what it took is not to wait for its lease
        await replica.ended()


# --- the tables without NATS: one PostgreSQL, a workspace for each test


@pytest.fixture(scope="session")
def shared_database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        database = Database(Path(folder), durable=False)
        asyncio.run(database.start())
        yield database
        database.kill()


@pytest.fixture
async def engine(shared_database: Database) -> AsyncIterator[AsyncEngine]:
    engine = new_engine(shared_database.url, 10)
    yield engine
    await engine.dispose()


@pytest.fixture
async def records(engine: AsyncEngine) -> Records:
    workspace = f"w{secrets.token_hex(6)}"
    await environments.prepare(engine, workspace)
    return Records(engine, workspace)
