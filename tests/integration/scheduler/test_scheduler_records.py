"""What no worker sees of inputs the scheduler tells, and it keeps what it gives up."""

from collections.abc import Callable

import waiting
from played_parts import BOUND, make_pool, until
from scheduler_stage import Parts

from tidemill._wire import coding, failure, subjects
from tidemill._wire.calls import DeadLetter, InputRecord, RecordBatch, State
from tidemill._wire.control import CancelCall
from tidemill._wire.messages import Chunk
from tidemill_common import streams

WORKSPACE = make_pool().workspace
FAILURE = failure.from_text("ExecutionError", "no module named 'nothing'")


async def told(parts: Parts, call: str, complete: Callable[[list[InputRecord]], object]) -> list[InputRecord]:
    """Return what was told of a call, as soon as it is complete."""

    async def all_told() -> list[InputRecord] | None:
        found = parts.bus.read(subjects.events_stream(WORKSPACE), subjects.records(WORKSPACE))
        batches = [coding.decode(RecordBatch, stored.data) async for stored in found]
        records = [record for batch in batches for record in batch.records if record.call == call]
        return records if complete(records) else None

    records: list[InputRecord] = await waiting.until(all_told, BOUND)
    return records


async def test_inputs_of_a_pool_that_never_starts_are_told_and_buried(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    worker.ready_at_once = False
    caller = await parts.caller(make_pool())
    await caller.submit(2)
    await until(lambda: worker.starting, "a start")
    await worker.fail_start(FAILURE, final=True)
    await parts.empty(caller.pool)
    found = await told(parts, caller.call, lambda records: len(records) == 2)
    assert {record.state for record in found} == {State.INIT_FAILURE}
    assert found[0].reason == "ExecutionError: no module named 'nothing'"
    for index in range(2):
        subject = subjects.dead(caller.pool.workspace, caller.pool.id, caller.call, index)
        letter = coding.decode(DeadLetter, (await parts.stored(streams.DEAD.name, subject)).data)
        assert letter.reason.startswith("no container became ready: ExecutionError")
        chunk = coding.decode(Chunk, letter.chunk)
        assert (chunk.indices, chunk.inputs) == ([index], caller.chunk(index).inputs)


async def test_inputs_of_a_pool_that_is_gone_are_told_as_cancelled(parts: Parts) -> None:
    await parts.scheduler()
    caller = await parts.caller(make_pool())
    await caller.submit(3)
    await until(lambda: caller.troubles, "the pool to be known")
    await parts.bus.bucket(streams.POOLS).delete(caller.pool.id)
    found = await told(parts, caller.call, lambda records: len(records) >= 3)
    assert {record.state for record in found} == {State.CANCELLED}
    assert {record.pool for record in found} == {caller.pool.id}


async def test_a_cancelled_call_is_told_as_a_whole(parts: Parts) -> None:
    await parts.scheduler()
    caller = await parts.caller(make_pool())
    request = CancelCall(caller.call, caller.pool.prefix, 5_000)
    await parts.bus.request(subjects.scheduler(WORKSPACE, "cancel"), coding.encode(request))
    waiting, ended = await told(parts, caller.call, lambda records: len(records) == 2)
    assert (waiting.state, waiting.runs) == (State.QUEUED, [0, 5_000])
    assert (ended.state, ended.runs, ended.pool) == (State.CANCELLED, [], caller.pool.id)
    assert ended.finished > 0


async def test_what_cannot_be_read_is_buried_and_not_dropped(parts: Parts) -> None:
    await parts.scheduler()
    caller = await parts.caller(make_pool())
    await parts.bus.store(subjects.inputs(caller.pool.prefix, caller.call, 4, 0), b"nonsense")
    caller.ring()
    await until(lambda: caller.troubles, "the pool to be known")
    await parts.bus.bucket(streams.POOLS).delete(caller.pool.id)
    subject = subjects.dead(caller.pool.workspace, caller.pool.id, caller.call, 0)
    letter = coding.decode(DeadLetter, (await parts.stored(streams.DEAD.name, subject)).data)
    assert (letter.chunk, letter.readable) == (b"nonsense", False)
