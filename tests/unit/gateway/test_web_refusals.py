"""What is refused again is not read again; and a connection is closed when nothing comes for long."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import structlog
import uvicorn
from uvicorn.server import ServerState
from waiting import until

from tidemill._wire import coding, limits
from tidemill._wire.limits import APP, Limit, LimitRecord
from tidemill._wire.web import Route
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_gateway.rate_limits import Origin, RateLimits
from tidemill_gateway.web.protocol import Protocol
from tidemill_gateway.web.refusals import Refusals
from tidemill_gateway.web.routes import Routes

ORIGIN = Origin("main", "env", "shop")
ROUTE = Route("main--shop-a", "main", "env", "ap-1", "shop", "fu-1", "a", "po-1", "tm.inputs.x", "asgi")
GET = b"GET /f/main--shop-a HTTP/1.1\r\nhost: here\r\n\r\n"
OTHER = b"GET /health HTTP/1.1\r\nhost: here\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    @property
    def statuses(self) -> list[bytes]:
        """The statuses of the responses so far."""
        return [part[:3] for part in self.written.split(b"HTTP/1.1 ")[1:]]


class Server(NamedTuple):
    """A front that answers 200 itself, and refuses what comes too soon."""

    rates: RateLimits
    routes: Routes
    refusals: Refusals
    state: ServerState
    bus: MemoryBus

    def connect(self, *, keep_alive: float = 75) -> tuple[Protocol, Transport]:
        """Return a new connection."""
        config = uvicorn.Config(answer, log_config=None, timeout_keep_alive=keep_alive)  # type: ignore[arg-type]
        config.load()
        protocol = Protocol(config, self.state, {}, refusals=self.refusals)
        transport = Transport()
        protocol.connection_made(transport)
        return protocol, transport


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server whose one app has had the only request that it may have for long."""
    bus, log = MemoryBus(MemoryServer()), structlog.get_logger()
    for name in (streams.ROUTES, streams.LIMITS):
        await bus.ensure_bucket(name)
    record = LimitRecord("main", APP, "env", "shop", Limit(0.001, 1))
    await bus.bucket(streams.LIMITS).put(limits.key("main", APP, "env", "shop"), coding.encode(record))
    await bus.bucket(streams.ROUTES).put(ROUTE.label, coding.encode(ROUTE))
    # The clock stands still: a refusal says in how many seconds to come again.
    rates, routes = RateLimits(bus, log, lambda: 1_000.0), Routes(bus, log)
    tasks = [asyncio.create_task(routes.watch()), asyncio.create_task(rates.run())]
    await until(lambda: routes.find(ROUTE.label) and rates.limit_of("main", APP, "env", "shop"))
    assert await rates.admit(ORIGIN) is None
    assert await rates.admit(ORIGIN) is not None
    yield Server(rates, routes, Refusals(routes, rates, "here.test"), ServerState(), bus)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def answered(transport: Transport, number: int) -> list[bytes]:
    """Return the statuses when there are so many."""
    await until(lambda: len(transport.statuses) >= number)
    return transport.statuses


async def test_what_is_refused_again_is_answered_alike(server: Server) -> None:
    protocol, transport = server.connect()
    for number in range(1, 4):
        protocol.data_received(GET)
        assert transport.statuses == [b"429"] * number
    first, second, third = transport.written.split(b"HTTP/1.1 ")[1:]
    assert len({first, second, third}) == 3  # each has an id
    assert len({re.sub(rb'"request_id":"[0-9a-f]{16}"', b"", part) for part in (first, second, third)}) == 1
    protocol.data_received(OTHER)
    assert await answered(transport, 4) == [b"429"] * 3 + [b"200"]
    protocol.data_received(GET)
    assert await answered(transport, 5) == [b"429"] * 3 + [b"200", b"429"]
    assert server.state.total_requests == 5


async def test_a_request_in_pieces_is_told_from_one_that_was_refused(server: Server) -> None:
    """The rest of a head may look like a request."""
    protocol, transport = server.connect()
    protocol.data_received(GET)
    protocol.data_received(b"POST /health HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % len(GET))
    protocol.data_received(GET)
    assert await answered(transport, 2) == [b"429", b"200"]
    protocol.data_received(GET[:20])
    protocol.data_received(GET[20:])
    assert await answered(transport, 3) == [b"429", b"200", b"429"]


async def test_several_requests_at_once_are_all_answered(server: Server) -> None:
    protocol, transport = server.connect()
    for times in (1, 2):
        protocol.data_received(GET + GET)
        protocol.data_received(GET + OTHER)
        assert await answered(transport, 4 * times) == [b"429", b"429", b"429", b"200"] * times


async def test_who_was_refused_is_let_in_when_the_limit_has_gone(server: Server) -> None:
    protocol, transport = server.connect()
    protocol.data_received(GET)
    protocol.data_received(GET)
    await server.bus.bucket(streams.LIMITS).delete(limits.key("main", APP, "env", "shop"))
    await until(lambda: server.rates.limit_of("main", APP, "env", "shop") is None)
    protocol.data_received(GET)
    assert await answered(transport, 3) == [b"429", b"429", b"200"]


async def test_a_connection_without_requests_is_closed(server: Server) -> None:
    protocol, transport = server.connect(keep_alive=0.01)
    protocol.data_received(GET)
    protocol.data_received(GET)
    assert not transport.closed
    await until(lambda: transport.closed)


async def test_a_connection_with_a_request_under_way_stays_open(server: Server) -> None:
    protocol, transport = server.connect(keep_alive=0.01)
    protocol.data_received(GET)
    protocol.data_received(GET[:20])
    await until(lambda: protocol.timeout_keep_alive_task is None)
    assert not transport.closed
    protocol.data_received(GET[20:])
    assert transport.statuses == [b"429", b"429"]
    protocol.connection_lost(None)
    assert protocol.timeout_keep_alive_task is None
