"""Of the web requests that succeed, those are recorded that somebody may know of; all are counted."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tidemill._wire import coding, ids, subjects
from tidemill._wire.calls import RecordBatch, State
from tidemill._wire.messages import Chunk, Format, Payload, Status
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_common.records import Recorder
from tidemill_worker.outputs import Item
from tidemill_worker.records import Records
from tidemill_worker.work import Part, Work, whole_part

APP = ids.new(ids.APP)
POOL: Any = SimpleNamespace(workspace="main", app_id=APP, id="po-1")
GOOD: Item = (0, Status.SUCCESS, (Format.HTTP, b""), 0)
BAD: Item = (0, Status.FAILURE, (Format.FAILURE, b""), 0)


class Worker:
    """The records of a worker with one container, and what it has told."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.recorder = Recorder(bus, "wo-1", structlog.get_logger(), CollectorRegistry())
        self.records = Records(self.recorder)
        self.parts: dict[int, Part] = {}
        self.container: Any = SimpleNamespace(pool=POOL, parts=self.parts, id="co-1", progress=0.0)

    def request(self, *, gateway: str = "gw-1") -> Work:
        """Return a request that this container answers."""
        payload = Payload(Format.HTTP, b"")
        chunk = Chunk(ids.new(ids.CALL), [0], 0, "reply", [payload], 1.0, gateway=gateway)
        work = Work(cast(Any, None), POOL, chunk, 0.0)
        self.parts[len(self.parts)] = whole_part(work)
        return work

    def finish(self, work: Work, item: Item = GOOD) -> None:
        """End a request."""
        for number, part in [*self.parts.items()]:
            if part.work is work:
                del self.parts[number]
        self.records.finished(work, [item], 0.01, "co-1")

    async def told(self) -> tuple[int, dict[str, int]]:
        """Return how many requests were counted, and the recorded calls with their states."""
        await self.recorder.close()
        subject = subjects.event("main", subjects.RECORDS, APP)
        found = self.bus.read(subjects.events_stream("main"), subject)
        batches = [coding.decode(RecordBatch, stored.data) async for stored in found]
        records = [record for batch in batches for record in batch.records]
        counts = [(each.minute, each.succeeded) for batch in batches for each in batch.requests]
        counted = dict(sorted(counts))  # the last number of each minute
        return sum(counted.values()), {record.call: record.state for record in records}


def name(work: Work) -> str:
    return ids.input_id(work.chunk.call, 0)


@pytest.fixture
async def worker() -> Worker:
    bus = MemoryBus(MemoryServer())
    await streams.apply_workspace(bus, "main")
    return Worker(bus)


async def test_a_request_that_succeeds_is_only_counted(worker: Worker) -> None:
    for _ in range(10):
        worker.finish(worker.request())
    assert await worker.told() == (10, {})


async def test_what_fails_or_is_no_request_is_recorded(worker: Worker) -> None:
    failed, call = worker.request(), worker.request(gateway="")
    worker.finish(failed, BAD)
    worker.finish(call)
    assert await worker.told() == (0, {failed.chunk.call: State.FAILURE, call.chunk.call: State.SUCCESS})


async def test_a_request_that_was_noted_is_recorded_and_counted(worker: Worker) -> None:
    one, other = worker.request(), worker.request()
    worker.records.note(worker.container, name(one))
    worker.records.note(worker.container, "nonsense")
    worker.finish(one)
    worker.finish(other)
    another = SimpleNamespace(pool=SimpleNamespace(workspace="another"), parts={}, id="co-2")
    worker.records.note(cast(Any, another), name(other))
    assert await worker.told() == (2, {one.chunk.call: State.SUCCESS})


async def test_a_request_that_calls_a_function_is_the_root_of_its_graph(worker: Worker) -> None:
    root, late = worker.request(), worker.request()
    child = Chunk("fc-1", [0], 0, "", [], 1.0, parent=name(root), root=root.chunk.call)
    worker.records.calls(worker.container, coding.encode(child))
    worker.finish(root)
    worker.finish(late)
    worker.records.calls(worker.container, coding.encode(child._replace(parent=name(late))))
    worker.records.calls(worker.container, b"nonsense")
    calls = {root.chunk.call: State.SUCCESS, late.chunk.call: State.SUCCESS}
    assert await worker.told() == (2, calls)


async def test_a_request_that_was_seen_to_run_is_recorded_to_its_end(worker: Worker) -> None:
    work = worker.request()
    (part,) = worker.parts.values()
    part.running = 0
    worker.records._look(worker.container, 10.0)
    worker.finish(work)
    assert await worker.told() == (1, {work.chunk.call: State.SUCCESS})
