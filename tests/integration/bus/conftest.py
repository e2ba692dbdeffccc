"""Buses for the tests: one NATS server for all tests of a process, and the bus without a server."""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from bus_connections import Connect, ConnectNats, connect_to

from tidemill_common.bus.memory import MemoryServer
from tidemill_common.bus.nats import NatsServiceBus
from tidemill_common.bus.protocol import ServiceBus
from tidemill_local.broker import Broker, BrokerSettings

_numbers = itertools.count()


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[Broker]:
    """A NATS server that all tests of this process share; nobody may stop it."""
    with tempfile.TemporaryDirectory(prefix="tm-") as folder:
        broker = Broker(BrokerSettings(Path(folder) / "nats"))
        asyncio.run(broker.start())
        yield broker
        broker.kill()


@pytest.fixture(params=["nats", "memory"])
def server(request: pytest.FixtureRequest) -> Broker | MemoryServer:
    """A server of either kind."""
    if request.param == "memory":
        return MemoryServer()
    broker: Broker = request.getfixturevalue("shared_broker")
    return broker


@pytest.fixture
async def new_bus(server: Broker | MemoryServer) -> AsyncIterator[Connect]:
    """Make connections to one server, of either kind."""
    made: list[ServiceBus] = []

    async def new() -> ServiceBus:
        bus = server.connect() if isinstance(server, MemoryServer) else await connect_to(server)
        made.append(bus)
        return bus

    yield new
    for bus in made:
        await bus.close()


@pytest.fixture
async def bus(new_bus: Connect) -> ServiceBus:
    """A connection, of either kind."""
    return await new_bus()


@pytest.fixture
def name() -> str:
    """A token that no other test of this server uses: for streams and subjects."""
    return f"t{next(_numbers)}"


@pytest.fixture
async def nats(broker: Broker) -> AsyncIterator[ConnectNats]:
    """Make connections to a NATS server of this test's own."""
    made: list[NatsServiceBus] = []

    async def new(user: str = "service") -> NatsServiceBus:
        made.append(await connect_to(broker, user))
        return made[-1]

    yield new
    for bus in made:
        await bus.close()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on both loops: callers may have either."""
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
