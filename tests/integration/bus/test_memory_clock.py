"""The bus without a server under a clock that jumps: what takes minutes is over at once."""

import asyncio
from datetime import UTC, datetime

import pytest

from tidemill._bus.protocol import Disconnected
from tidemill_common.bus.clock import MovedClock
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_common.bus.protocol import ConsumerSpec, Delivery, StreamSpec

QUEUE = ConsumerSpec("INPUTS", "q", "in.>", ack_wait=30.0)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def bus(clock: MovedClock) -> MemoryBus:
    bus = MemoryServer(clock).connect()
    await bus.ensure_stream(StreamSpec("INPUTS", ("in.>",), retention="workqueue"))
    await bus.ensure_stream(
        StreamSpec("TIMERS", ("timers.>", "due.>"), retention="workqueue", allow_msg_schedules=True)
    )
    await bus.ensure_stream(StreamSpec("KEPT", ("kept.>",), max_age=600.0))
    return bus


async def next_of(inbox: "asyncio.Queue[Delivery]") -> Delivery:
    async with asyncio.timeout(60):
        return await inbox.get()


async def test_a_lease_runs_out_exactly_when_it_says(bus: MemoryBus, clock: MovedClock) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    await bus.store("in.a", b"x")
    puller = bus.pull(QUEUE, inbox.put_nowait)
    puller.want(1)
    first = await next_of(inbox)
    puller.want(1)
    clock.advance(29.9)
    await bus.flush()
    assert inbox.empty()
    first.renew()
    clock.advance(29.9)
    await bus.flush()
    assert inbox.empty()
    clock.advance(0.2)
    assert (await next_of(inbox)).redelivered


async def test_ids_are_forgotten_after_the_window(bus: MemoryBus, clock: MovedClock) -> None:
    await bus.store("kept.a", b"", msg_id="a")
    clock.advance(119)
    assert (await bus.store("kept.a", b"", msg_id="a")).duplicate
    clock.advance(2)
    assert not (await bus.store("kept.a", b"", msg_id="a")).duplicate


async def test_messages_go_with_their_age(bus: MemoryBus, clock: MovedClock) -> None:
    await bus.store("kept.a", b"")
    clock.advance(599)
    assert await bus.last("KEPT", "kept.a") is not None
    clock.advance(1)
    assert await bus.last("KEPT", "kept.a") is None


async def test_a_schedule_fires_on_time_and_once(bus: MemoryBus, clock: MovedClock) -> None:
    inbox: asyncio.Queue[Delivery] = asyncio.Queue()
    due = datetime.fromtimestamp(clock.time() + 3_600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers = {"Nats-Schedule": f"@at {due}", "Nats-Schedule-Target": "due.a"}
    await bus.store("timers.a", b"x", headers=headers)
    bus.pull(ConsumerSpec("TIMERS", "due", "due.>"), inbox.put_nowait).want(2)
    clock.advance(3_599)
    await bus.flush()
    assert inbox.empty()
    clock.advance(1)
    await (await next_of(inbox)).ack()
    clock.advance(3_600)
    await bus.flush()
    assert inbox.empty()


async def test_a_played_outage_keeps_stores_and_fails_the_rest(bus: MemoryBus) -> None:
    told: list[str] = []
    bus.on_disconnect(lambda: told.append("lost"))
    bus.on_reconnect(lambda: told.append("back"))
    bus.disconnect()
    with pytest.raises(Disconnected):
        bus.publish("kept.a", b"")
    with pytest.raises(Disconnected):
        await bus.flush()
    store = bus.store("kept.a", b"", msg_id="a")
    assert not store.done()
    bus.reconnect()
    assert (await store).sequence == 1
    assert told == ["lost", "back"]
