"""How a service starts, serves and ends, as a process of its own with a real NATS."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tidemill_common import streams
from tidemill_common.bus.nats import connect
from tidemill_common.bus.protocol import ServiceBus
from tidemill_local.broker import Broker

PROBE = str(Path(__file__).with_name("probe.py"))


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[ServiceBus]:
    bus = await connect(broker.url, "service", broker.settings.passwords["service"], timeout=20)
    yield bus
    await bus.close()


def messages(service: Any) -> list[str]:
    return [record["msg"] for record in service.records()]


async def test_it_tells_its_starter_that_it_serves_and_where(launch: Any) -> None:
    probe = launch(PROBE)
    told = await probe.serving()
    assert (told["name"], told["pid"]) == ("probe", probe.process.pid)
    assert (await probe.get("/healthz", told["address"])) == (200, "ok\n")


async def test_its_streams_and_buckets_are_there_when_it_serves(launch: Any, bus: ServiceBus) -> None:
    await launch(PROBE).serving()
    assert await bus.bucket(streams.POOLS).items() == {}
    await bus.store("tm.dead.main.po-1.fc-1.0", b"x")


async def test_readiness_is_its_own_word_and_that_of_nats(
    launch: Any, bus: ServiceBus, broker: Broker, until: Callable[..., Any]
) -> None:
    probe = launch(PROBE)
    await probe.serving()

    async def answers(*expected: object) -> None:
        async def look() -> bool:
            return bool(await probe.get("/readyz") == expected)

        await until(look, what=f"for {expected}")

    await answers(503, "nobody has asked yet\n")
    await bus.request("tm.probe.ask", b"x", timeout=60)
    await answers(200, "ready\n")
    broker.kill()
    status, reason = await probe.get("/readyz")
    assert status == 503
    assert reason != "ready\n"
    assert (await probe.get("/healthz"))[0] == 200


async def test_it_is_alive_but_not_ready_while_nats_is_away_and_starts_when_it_comes(
    launch: Any, broker: Broker, until: Callable[..., Any]
) -> None:
    broker.kill()
    probe = launch(PROBE)
    await until(lambda: "cannot reach NATS yet" in messages(probe))
    (address,) = _listening(probe.process.pid)
    assert (await probe.get("/healthz", address))[0] == 200
    assert await probe.get("/readyz", address) == (503, "not connected to NATS yet\n")
    await broker.start()
    assert (await probe.serving())["address"] == address


def _listening(pid: int) -> list[str]:
    """Return where a process listens."""
    found = psutil.Process(pid).net_connections(kind="tcp")
    return [f"{one.laddr.ip}:{one.laddr.port}" for one in found if one.status == psutil.CONN_LISTEN]


async def test_it_goes_on_after_a_restart_of_nats(
    launch: Any, bus: ServiceBus, broker: Broker, until: Callable[..., Any]
) -> None:
    probe = launch(PROBE)
    await probe.serving()
    await broker.restart()

    async def answers() -> bool:
        try:
            return await bus.request("tm.probe.ask", b"again", timeout=1.0) == b"again"
        except Exception:
            return False

    await until(answers)
    await until(lambda: "connected to NATS again" in messages(probe))
    _, text = await probe.get("/metrics")
    assert "tidemill_bus_disconnects_total 1.0" in text
    probe.send(signal.SIGTERM)
    assert await probe.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_stop_it_finishes_what_it_took_and_exits_with_0(
    launch: Any, bus: ServiceBus, number: signal.Signals
) -> None:
    probe = launch(PROBE)
    await probe.serving()
    asked = asyncio.create_task(bus.request("tm.probe.ask", b"slow", timeout=60))
    await bus.request("tm.probe.ask", b"x", timeout=60)
    probe.send(number)
    assert await asked == b"slow"
    assert await probe.ended() == 0
    said = messages(probe)
    assert said[-4:] == ["draining", "drained", "loop ended", "stopped"]


async def test_a_drain_that_takes_too_long_is_cut_off(launch: Any) -> None:
    probe = launch(PROBE, "drain-hangs", TIDEMILL_DRAIN_TIMEOUT="0.1")
    await probe.serving()
    probe.send(signal.SIGTERM)
    assert await probe.ended() == 0
    assert "gave up draining" in messages(probe)


async def test_a_second_signal_cuts_the_drain_short(launch: Any, until: Callable[..., Any]) -> None:
    probe = launch(PROBE, "drain-hangs")
    await probe.serving()
    probe.send(signal.SIGTERM)
    await until(lambda: "draining" in messages(probe))
    probe.send(signal.SIGTERM)
    assert await probe.ended() == 0


async def test_a_drain_that_fails_is_told_and_exits_with_1(launch: Any) -> None:
    probe = launch(PROBE, "drain-fails")
    await probe.serving()
    probe.send(signal.SIGTERM)
    assert await probe.ended() == 1
    assert "cannot drain" in probe.records()[-1]["exception"]


async def test_a_crash_of_one_loop_ends_the_process_loudly(launch: Any, bus: ServiceBus) -> None:
    probe = launch(PROBE, "crash")
    await probe.serving()
    await bus.request("tm.probe.ask", b"x", timeout=60)
    assert await probe.ended() == 1
    crashed = next(record for record in probe.records() if record["msg"] == "crashed")
    assert crashed["level"] == "error"
    assert "the loop is broken" in crashed["exception"]


async def test_told_to_stop_while_it_waits_for_nats_it_ends(
    launch: Any, broker: Broker, until: Callable[..., Any]
) -> None:
    broker.kill()
    probe = launch(PROBE)
    await until(lambda: "cannot reach NATS yet" in messages(probe))
    probe.send(signal.SIGTERM)
    assert await probe.ended() == 0


async def test_told_to_stop_while_it_starts_it_ends(
    launch: Any, bus: ServiceBus, until: Callable[..., Any]
) -> None:
    probe = launch(PROBE, "start-hangs")

    async def answers() -> bool:
        try:
            return await bus.request("tm.probe.ask", b"x") == b"x"
        except Exception:
            return False

    await until(answers)
    probe.send(signal.SIGTERM)
    assert await probe.ended() == 0


async def test_wrong_credentials_are_told_and_tried_again(launch: Any, until: Callable[..., Any]) -> None:
    probe = launch(PROBE, TIDEMILL_NATS_PASSWORD="wrong")
    await until(lambda: "cannot reach NATS yet" in messages(probe))
    told = next(record for record in probe.records() if record["msg"] == "cannot reach NATS yet")
    assert "uthoriz" in told["error"]
    assert "wrong" not in told["error"]


async def test_a_taken_port_is_told_and_exits_with_1(launch: Any) -> None:
    first = launch(PROBE)
    told = await first.serving()
    second = launch(PROBE, TIDEMILL_HEALTH_PORT=told["address"].rpartition(":")[2])
    assert await second.ended() == 1
    assert "cannot answer health checks" in messages(second)
