"""What a caller publishes by hand, in its own workspace, ends nobody's work but its own."""

import msgpack
import pytest
from played_parts import make_pool, until
from scheduler_stage import Parts

from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import Trouble
from tidemill._wire.specs import Pool
from tidemill_common import streams
from tidemill_scheduler.leader import UNKNOWN_AT_ONCE


@pytest.mark.parametrize("pool", ["a=b", "x" * 200])
async def test_a_bell_for_what_can_be_no_pool_does_not_end_the_leader(parts: Parts, pool: str) -> None:
    scheduler = await parts.scheduler()
    told: list[str] = []
    await parts.bus.subscribe("tm.trouble.main.*", lambda message: told.append(message.subject))
    for one in (pool, "po-unknown"):  # the leader looks for both, equally long
        parts.bus.publish(f"tm.demand.main.{one}", b"")
    await until(lambda: told or scheduler.ended, "an answer")
    assert told == ["tm.trouble.main.po-unknown"]
    assert not scheduler.ended


async def test_bells_of_one_workspace_for_nothing_keep_no_other_waiting(parts: Parts) -> None:
    await parts.scheduler()
    told: list[str] = []
    await parts.bus.subscribe("tm.trouble.other.*", lambda message: told.append(message.subject))
    for number in range(2 * UNKNOWN_AT_ONCE):
        parts.bus.publish(f"tm.demand.main.po-{number}", b"")
    parts.bus.publish("tm.demand.other.po-0", b"")  # for what another asks for, too
    await until(lambda: told, "an answer")


async def test_callers_are_told_when_too_much_waits_for_their_workspace(parts: Parts) -> None:
    await parts.scheduler(max_queued=8)
    told: list[Trouble] = []
    await parts.bus.subscribe(
        "tm.trouble.main.*", lambda word: told.append(coding.decode(Trouble, word.data))
    )
    callers = [await parts.caller(make_pool()) for _ in range(2)]
    for caller in callers:
        await caller.submit(5)
    await until(lambda: {each.pool for each in told if each.full} == {one.pool.id for one in callers}, "word")
    word = "10 messages of inputs wait for the workspace, 8 may"
    await until(lambda: word in [each.message for each in told], "the whole word")


@pytest.mark.parametrize(
    "fields",
    [
        {"call": "a.b"},
        {"call": 5},
        {"indices": [2**40]},
        {"indices": "abc"},
        {"attempt": "0\r\nNats-Rollup: all"},
        {"reply": 5},
        {"inputs": []},
    ],
    ids=str,
)
async def test_a_chunk_that_is_none_does_not_end_the_leader(parts: Parts, fields: dict[str, object]) -> None:
    scheduler, pool = await parts.scheduler(), make_pool()
    caller = await parts.caller(pool)
    subject, data = _odd(pool, **fields)
    await parts.bus.store(subject, data)
    await caller.submit(3, ring=False)
    await parts.known(pool)
    await parts.bus.bucket(streams.POOLS).delete(pool.id)
    await parts.empty(pool)
    assert not scheduler.ended


@pytest.mark.parametrize("rest", ["one", "a=b.0.0", "fc-x.99999999999999.0", "fc-x.a.b"])
async def test_a_subject_that_names_no_input_does_not_end_the_leader(parts: Parts, rest: str) -> None:
    scheduler, pool = await parts.scheduler(), make_pool()
    await parts.caller(pool)
    await parts.bus.store(f"{pool.prefix}.{rest}", b"\xc1")
    await parts.known(pool)
    await parts.bus.bucket(streams.POOLS).delete(pool.id)
    await parts.empty(pool)
    assert not scheduler.ended


def _odd(pool: Pool, **fields: object) -> tuple[str, bytes]:
    call = ids.new(ids.CALL)
    chunk = {"call": call, "indices": [0], "attempt": 0, "reply": "", "inputs": [[1, b""]], "sent": 0.0}
    return subjects.inputs(pool.prefix, call, 0, 0), msgpack.packb(list((chunk | fields).values()))
