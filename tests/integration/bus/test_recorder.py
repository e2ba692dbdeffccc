"""Records leave in batches, delay nobody, and are counted when they are lost."""

import random

import pytest
import structlog
from bus_connections import Connect
from prometheus_client import CollectorRegistry
from waiting import until

from tidemill._wire import coding, failure, ids, subjects
from tidemill._wire.calls import InputRecord, RecordBatch, State, runs_of
from tidemill_common import records as recording
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.records import Recorder, reason_of

WORKSPACE = "main"


def record(index: int) -> InputRecord:
    return InputRecord("fc-1", [index, 1], State.SUCCESS, 0, "po-1", "", "fc-1", "co-1", 1.0, 2.0, 3.0)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a recorder wait for a busy broker at its end: what it sent is looked at then."""
    monkeypatch.setattr(recording, "CLOSE_TIMEOUT", 60.0)


@pytest.fixture
async def app(bus: ServiceBus) -> str:
    await streams.apply_workspace(bus, WORKSPACE)
    return ids.new(ids.APP)


async def batches(bus: ServiceBus, app: str) -> list[RecordBatch]:
    found = bus.read(subjects.events_stream(WORKSPACE), subjects.event(WORKSPACE, subjects.RECORDS, app))
    return [coding.decode(RecordBatch, stored.data) async for stored in found]


def recorder(bus: ServiceBus) -> Recorder:
    return Recorder(bus, ids.new(ids.WORKER), structlog.get_logger(), CollectorRegistry())


async def until_sent(bus: ServiceBus, app: str, count: int) -> list[RecordBatch]:
    async def all_sent() -> list[RecordBatch] | None:
        found = await batches(bus, app)
        return found if sum(len(batch.records) for batch in found) >= count else None

    sent: list[RecordBatch] = await until(all_sent)
    return sent


async def test_records_of_a_moment_are_one_message_for_each_app(bus: ServiceBus, app: str) -> None:
    mine, other = recorder(bus), ids.new(ids.APP)
    for index in range(20):
        mine.add(WORKSPACE, app if index % 2 else other, record(index))
    (batch,) = await until_sent(bus, app, 10)
    assert [one.runs[0] for one in batch.records] == list(range(1, 20, 2))
    assert len(await batches(bus, other)) == 1


async def test_a_full_batch_leaves_at_once(bus: ServiceBus, app: str) -> None:
    mine = recorder(bus)
    for index in range(recording.BATCH):
        mine.add(WORKSPACE, app, record(index))
    await mine.close()
    (batch,) = await batches(bus, app)
    assert len(batch.records) == recording.BATCH


async def test_the_last_records_are_sent_at_the_end(bus: ServiceBus, app: str) -> None:
    mine = recorder(bus)
    mine.add(WORKSPACE, app, record(0))
    await mine.close()
    assert len(await batches(bus, app)) == 1


async def test_what_the_broker_does_not_take_is_counted_and_told_later(
    app: str, bus: ServiceBus, new_bus: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = await new_bus()
    mine = recorder(away)
    monkeypatch.setattr(recording, "BUDGET", 100)
    if isinstance(away, MemoryBus):
        away.disconnect()
    for _ in range(3):  # with the second flush the budget is used up
        mine.add(WORKSPACE, app, record(0))
        mine.flush()
    assert mine._untold > 0
    if isinstance(away, MemoryBus):
        away.reconnect()
    await until(lambda: not mine._bytes)
    lost = mine._untold
    mine.add(WORKSPACE, app, record(9))
    await mine.close()
    found = await batches(bus, app)
    assert found[-1].dropped == lost
    assert sum(len(batch.records) for batch in found) + lost == 4


async def test_requests_are_told_as_how_many_there_were_in_their_minute(
    bus: ServiceBus, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000_000.0
    monkeypatch.setattr(recording.time, "time", lambda: now)
    mine = recorder(bus)
    for _ in range(3):
        mine.count(WORKSPACE, app, "po-1")
    mine.count(WORKSPACE, app, "po-2")
    mine.add(WORKSPACE, app, record(0))
    mine.flush()
    mine.count(WORKSPACE, app, "po-1")
    now += 60
    mine.count(WORKSPACE, app, "po-1")
    await mine.close()
    first, second, third = await batches(bus, app)
    minute = int(now // 60)
    assert sorted(first.requests) == [("po-1", minute - 1, 3), ("po-2", minute - 1, 1)]
    assert len(first.records) == 1
    assert second.requests == (("po-1", minute - 1, 4),)
    assert third.requests == (("po-1", minute, 1),)


def test_runs_name_each_index_once() -> None:
    assert runs_of([]) == []
    assert runs_of([5, 3, 4]) == [3, 3]
    assert runs_of([1, 9, 3]) == [1, 1, 9, 1, 3, 1]
    indices = random.sample(range(100), 40)
    runs = runs_of(indices)
    named = [
        index
        for first, count in zip(runs[::2], runs[1::2], strict=True)
        for index in range(first, first + count)
    ]
    assert sorted(named) == sorted(indices)


def test_a_reason_can_always_be_stored() -> None:
    assert reason_of(failure.from_text("KeyError", "a\0b")) == "KeyError: ab"
    assert reason_of(b"nonsense") == ""
    assert len(reason_of(failure.from_text("KeyError", "x" * 10_000))) == 500
