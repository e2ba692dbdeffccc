"""Delayed attempts, and the end of calls."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from played_parts import Caller, make_pool, until
from scheduler_stage import Parts

from tidemill._bus.protocol import Message, RequestFailed
from tidemill._wire import coding, subjects
from tidemill._wire.calls import DeadLetter
from tidemill._wire.control import CallRecord, CancelCall, Done
from tidemill._wire.messages import Chunk, Outputs, Status
from tidemill._wire.scheduling import Cancelled
from tidemill._wire.specs import Pool
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus


async def store_due(bus: ServiceBus, caller: Caller, index: int, attempt: int = 1) -> None:
    """Store an attempt as it appears when its timer fires."""
    target = subjects.inputs(caller.pool.prefix, caller.call, index, attempt)
    await bus.store(
        subjects.due("main", caller.call, index, attempt),
        coding.encode(caller.chunk(index, attempt)),
        msg_id=f"due.{subjects.input_key(caller.call, index, attempt)}",
        headers={"Tidemill-Subject": target, "traceparent": "00-1-2-01"},
    )


async def queued(bus: ServiceBus, pool: Pool) -> list[Chunk]:
    """Return the chunks in a pool's queue."""
    stored = bus.read(pool.stream, subjects.pool_inputs(pool.prefix))
    return [coding.decode(Chunk, one.data) async for one in stored]


async def nothing_due(bus: ServiceBus) -> bool:
    """Return whether TIMERS holds nothing any more."""
    return not [one async for one in bus.read(streams.TIMERS.name, "tm.due.>")]


async def test_what_is_due_moves_into_its_pool_once_though_two_replicas_take_it(parts: Parts) -> None:
    first, second = await parts.scheduler(), await parts.scheduler(leads=False)
    caller = await parts.caller(make_pool())
    await asyncio.gather(*(store_due(parts.bus, caller, index) for index in range(100)))

    def moved() -> float:
        return sum(one.count("tidemill_scheduler_due_total", outcome="moved") for one in (first, second))

    await until(lambda: moved() == 100, "all moved")
    chunks = await queued(parts.bus, caller.pool)
    assert sorted(chunk.indices[0] for chunk in chunks) == list(range(100))
    assert {chunk.attempt for chunk in chunks} == {1}
    assert await nothing_due(parts.bus)
    stored = await parts.bus.last(caller.pool.stream, subjects.inputs(caller.pool.prefix, caller.call, 7, 1))
    assert stored is not None
    assert stored.headers["traceparent"] == "00-1-2-01"


async def test_a_due_attempt_wakes_its_pool(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    caller = await parts.caller(make_pool())
    await store_due(parts.bus, caller, 0)
    await until(lambda: worker.placements, "a placement")


@pytest.mark.parametrize("parts", ["nats"], indirect=True)
async def test_a_timer_fires_into_its_pool_when_its_time_has_come(parts: Parts) -> None:
    await parts.scheduler()
    worker = await parts.worker()
    caller = await parts.caller(make_pool())
    began = time.monotonic()
    at = datetime.now(UTC) + timedelta(seconds=1)
    await parts.bus.store(
        subjects.timer("main", caller.call, 0, 1),
        coding.encode(caller.chunk(0, 1)),
        msg_id=subjects.input_key(caller.call, 0, 1),
        headers={
            "Nats-Schedule": f"@at {at:%Y-%m-%dT%H:%M:%S.%fZ}",
            "Nats-Schedule-Target": subjects.due("main", caller.call, 0, 1),
            "Tidemill-Subject": subjects.inputs(caller.pool.prefix, caller.call, 0, 1),
        },
    )
    await until(lambda: worker.placements, "a placement")
    assert time.monotonic() - began >= 0.9
    (chunk,) = await queued(parts.bus, caller.pool)
    assert chunk.attempt == 1


async def test_a_replica_that_dies_between_publish_and_acknowledgement_doubles_nothing(parts: Parts) -> None:
    dying = await parts.dying_scheduler("tm.inputs.")
    caller = await parts.caller(make_pool())
    await store_due(parts.bus, caller, 0)
    await until(lambda: dying.dead, "a death after the publish")
    follower = await parts.scheduler(leads=False)
    (lease,) = dying.leases
    parts.bus.publish(lease, b"-NAK")  # as if the lease had run out
    await until(
        lambda: follower.count("tidemill_scheduler_due_total", outcome="repeated") == 1, "a second move"
    )
    assert len(await queued(parts.bus, caller.pool)) == 1
    assert await nothing_due(parts.bus)


async def test_a_due_attempt_of_a_pool_that_is_gone_is_cancelled(parts: Parts) -> None:
    await parts.scheduler()
    caller = Caller(parts.bus, make_pool())
    await store_due(parts.bus, caller, 3)
    stored = await parts.stored("RESULTS_main", subjects.result("main", caller.call, 3))
    assert coding.decode(Outputs, stored.data).items[0].status == Status.CANCELLED
    await until(lambda: nothing_due(parts.bus))  # the output is stored first


async def test_what_cannot_be_read_is_kept_among_the_dead(parts: Parts) -> None:
    await parts.scheduler()
    await parts.bus.store("tm.due.main.fc-broken.0.0", b"?", headers={"Tidemill-Subject": "nonsense"})
    stored = await parts.stored(streams.DEAD.name, "tm.dead.main.unknown.fc-broken.0")
    letter = coding.decode(DeadLetter, stored.data)
    assert (letter.chunk, letter.readable) == (b"?", False)
    assert letter.reason == "not a subject of inputs: 'nonsense'"


async def test_cancelling_a_call_empties_its_queue_and_tells_the_workers(parts: Parts) -> None:
    await parts.scheduler()
    caller, other = await parts.caller(make_pool()), await parts.caller(make_pool())
    heard: list[Message] = []
    await parts.bus.subscribe(subjects.ALL_CANCELS, heard.append)
    await caller.submit(20, ring=False)
    await other.submit(2, ring=False)
    request = CancelCall(caller.call, caller.pool.prefix, 20, kept=True, terminate_containers=True)
    answer = await parts.bus.request(subjects.scheduler("main", "cancel"), coding.encode(request))
    assert coding.decode(Done, answer) == Done()
    assert await queued(parts.bus, caller.pool) == []
    assert len(await queued(parts.bus, other.pool)) == 2
    assert coding.decode(Cancelled, heard[0].data) == Cancelled(
        "main", caller.call, terminate_containers=True
    )
    for index in range(20):
        stored = await parts.bus.last("RESULTS_main", subjects.result("main", caller.call, index))
        assert stored is not None
        assert coding.decode(Outputs, stored.data).items[0].status == Status.CANCELLED


async def test_cancelling_a_call_leaves_the_results_that_are_there(parts: Parts) -> None:
    await parts.scheduler()
    caller = await parts.caller(make_pool())
    await parts.bus.store(subjects.result("main", caller.call, 1), b"mine")
    request = CancelCall(caller.call, caller.pool.prefix, 3, kept=True)
    for _ in range(2):  # a second request does no harm
        await parts.bus.request(subjects.scheduler("main", "cancel"), coding.encode(request))
    stored = await parts.bus.last("RESULTS_main", subjects.result("main", caller.call, 1))
    assert stored is not None
    assert stored.data == b"mine"


async def test_a_cancelled_call_is_not_tried_again_later(parts: Parts) -> None:
    await parts.scheduler()
    caller = await parts.caller(make_pool())
    at = datetime.now(UTC) + timedelta(hours=1)
    await parts.bus.store(
        subjects.timer("main", caller.call, 0, 1),
        coding.encode(caller.chunk(0, 1)),
        headers={
            "Nats-Schedule": f"@at {at:%Y-%m-%dT%H:%M:%SZ}",
            "Nats-Schedule-Target": subjects.due("main", caller.call, 0, 1),
            "Tidemill-Subject": subjects.inputs(caller.pool.prefix, caller.call, 0, 1),
        },
    )
    request = CancelCall(caller.call, caller.pool.prefix)
    await parts.bus.request(subjects.scheduler("main", "cancel"), coding.encode(request))
    assert not [one async for one in parts.bus.read(streams.TIMERS.name, "tm.timers.>")]


@pytest.mark.parametrize("num_inputs", [-1, 2**31, 2**30])
async def test_no_results_are_stored_for_inputs_that_a_call_does_not_have(
    parts: Parts, num_inputs: int
) -> None:
    await parts.scheduler()
    caller = await parts.caller(make_pool())
    prefix, call = caller.pool.prefix, caller.call
    record = CallRecord(call, caller.pool.id, prefix, 2_000, 0.0)
    await parts.bus.store(subjects.call_record("main", call), coding.encode(record))
    request = CancelCall(call, prefix, num_inputs, kept=True)
    with pytest.raises(RequestFailed, match="inputs"):
        await parts.bus.request(subjects.scheduler("main", "cancel"), coding.encode(request))


async def test_a_prefix_that_is_none_is_refused(parts: Parts) -> None:
    await parts.scheduler()
    with pytest.raises(RequestFailed, match="not a prefix of inputs"):
        await parts.bus.request(
            subjects.scheduler("main", "cancel"), coding.encode(CancelCall("fc-1", "tm.other"))
        )
