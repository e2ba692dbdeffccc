"""A registry in a process of its own, and somebody who asks it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pytest

from tidemill._wire import coding, subjects
from tidemill._wire.control import (
    AppCreated,
    AppHeartbeat,
    CreateApp,
    Done,
    FunctionHandle,
    FunctionSpec,
    FunctionsPublished,
    GetFunction,
    Pool,
    PublishFunctions,
    Source,
    StopApp,
)
from tidemill_common import streams
from tidemill_common.bus.nats import connect
from tidemill_common.bus.protocol import ServiceBus
from tidemill_local.broker import Broker
from tidemill_local.database import Database

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
        """Return what the bucket holds."""
        items = await self.bus.bucket(streams.POOLS).items()
        return {key: coding.decode(Pool, value) for key, value in items.items()}

    async def pool(self, pool_id: str) -> Pool | None:
        value = await self.bus.bucket(streams.POOLS).get(pool_id)
        return coding.decode(Pool, value) if value is not None else None


def spec(name: str = "f", **fields: Any) -> FunctionSpec:
    return FunctionSpec(name=name, source=Source(module="m", qualname=name), **fields)


@pytest.fixture(name="spec")
def make_spec() -> Callable[..., FunctionSpec]:
    return spec


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[ServiceBus]:
    bus = await connect(broker.url, "service", broker.settings.passwords["service"])
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
