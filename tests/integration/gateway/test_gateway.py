"""The gateway as a process: it listens, tells its health, ends in order."""

import asyncio
import signal
from typing import Any

import pytest

from tidemill_common import streams
from tidemill_common.bus.nats import connect


@pytest.fixture
async def bus(broker: Any) -> Any:
    """A connection that has made the streams: the gateway may not, and waits for them."""
    bus = await connect(broker.url, "service", broker.settings.passwords["service"])
    await streams.apply(bus, "main")
    yield bus
    await bus.close()


@pytest.fixture
async def gateway(launch: Any, bus: Any) -> Any:
    gateway = launch("-m", "tidemill_gateway")
    await gateway.serving()
    return gateway


async def test_it_answers_health_readiness_and_metrics_on_its_own_address(gateway: Any, until: Any) -> None:
    assert await gateway.get("/healthz") == (200, "ok\n")

    async def is_ready() -> bool:  # a check that takes long is answered otherwise
        return bool(await gateway.get("/readyz") == (200, "ready\n"))

    await until(is_ready)
    status, text = await gateway.get("/metrics")
    assert status == 200
    assert 'tidemill_service_info{service="gateway"' in text


async def test_it_is_alive_but_not_ready_without_nats(gateway: Any, broker: Any) -> None:
    broker.kill()
    assert (await gateway.get("/readyz"))[0] == 503
    assert (await gateway.get("/healthz"))[0] == 200


async def test_what_is_not_there_is_not_found(gateway: Any) -> None:
    assert (await gateway.get("/nowhere"))[0] == 404


async def test_it_listens_where_it_is_told(launch: Any, gateway: Any) -> None:
    port = gateway.address.rpartition(":")[2]
    gateway.send(signal.SIGTERM)
    assert await gateway.ended() == 0
    again = launch("-m", "tidemill_gateway", TIDEMILL_GATEWAY_PORT=port)
    assert (await again.serving())["address"] == f"127.0.0.1:{port}"


async def test_an_address_that_is_taken_is_told_and_exits_with_1(launch: Any, gateway: Any) -> None:
    port = gateway.address.rpartition(":")[2]
    second = launch("-m", "tidemill_gateway", TIDEMILL_GATEWAY_PORT=port)
    assert await second.ended() == 1
    assert "crashed" in [record["msg"] for record in second.records()]


async def test_told_to_stop_it_ends_with_connections_open(gateway: Any) -> None:
    host, port = gateway.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    gateway.send(signal.SIGTERM)
    assert await gateway.ended() == 0
    writer.close()
