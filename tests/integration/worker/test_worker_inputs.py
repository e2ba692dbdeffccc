"""Inputs go in, outputs come out, and nothing is acknowledged before it is stored."""

import os
from pathlib import Path
from typing import Any

import pytest
from worker_stage import WORKSPACE, Stage, eventually

from tidemill._bus import blobs
from tidemill._wire import coding, ids, payload, subjects
from tidemill._wire.calls import DeadLetter
from tidemill._wire.messages import Blob, Chunk, Outputs, Payload, Status
from tidemill._wire.payload import INLINE_LIMIT

DOUBLE = "def f(x):\n    return 2 * x"


async def test_a_call_is_executed_and_its_output_comes_back(stage: Stage) -> None:
    pool = await stage.pool("def f(x, y):\n    return x * y")
    (container,) = await stage.place(pool)
    output = await stage.result(await stage.call(pool, (6, 7)))
    assert (output.output.status, output.value, output.container) == (Status.SUCCESS, 42, container)
    await stage.settled(pool)


async def test_the_inputs_of_a_chunk_come_back_under_their_own_indices(stage: Stage) -> None:
    pool = await stage.pool(DOUBLE)
    await stage.place(pool)
    call = await stage.call(pool, *((n,) for n in range(100)), first=50)
    outputs = await stage.results(call, 100)
    assert [(one.output.index, one.value) for one in outputs] == [(50 + n, 2 * n) for n in range(100)]
    await stage.settled(pool)


async def test_inputs_that_wait_are_taken_when_a_container_is_ready(stage: Stage) -> None:
    pool = await stage.pool(DOUBLE)
    calls = [await stage.call(pool, (n,)) for n in range(5)]
    await stage.place(pool)
    assert [(await stage.result(call)).value for call in calls] == [0, 2, 4, 6, 8]


async def test_an_exception_comes_back_as_itself(stage: Stage) -> None:
    pool = await stage.pool("def f(x):\n    raise KeyError(x)")
    await stage.place(pool)
    output = await stage.result(await stage.call(pool, ("gone",)))
    assert output.output.status == Status.FAILURE
    assert isinstance(output.error, KeyError)
    await stage.settled(pool)


async def test_large_payloads_travel_through_the_object_store_both_ways(stage: Stage) -> None:
    pool = await stage.pool("def f(data):\n    return data + data")
    await stage.place(pool)
    data = os.urandom(INLINE_LIMIT + 1)
    form, encoded = payload.encode_call((data,), {})
    blob = await blobs.put(stage.bus, WORKSPACE, encoded)
    inputs = [Payload(form, blob), Payload(*payload.encode_call((b"ab",), {}))]
    small = await stage.submit(pool, ids.new(ids.CALL), inputs)
    first, second = await stage.results(small, 2)
    result = first.output.payload
    assert isinstance(result.data, Blob)
    assert payload.decode(result.format, await blobs.get(stage.bus, WORKSPACE, result.data)) == data + data
    assert second.value == b"abab"
    await stage.settled(pool)


async def test_a_lost_blob_fails_its_input_and_no_other(stage: Stage) -> None:
    pool = await stage.pool(DOUBLE)
    await stage.place(pool)
    form, encoded = payload.encode_call((b"x" * (INLINE_LIMIT + 1),), {})
    blob = await blobs.put(stage.bus, WORKSPACE, encoded)
    await blobs.delete(stage.bus, WORKSPACE, blob)
    inputs = [Payload(form, blob), Payload(*payload.encode_call((4,), {}))]
    first, second = await stage.results(await stage.submit(pool, ids.new(ids.CALL), inputs), 2)
    assert "the argument is lost" in str(first.error)
    assert second.value == 8


async def test_large_outputs_of_a_chunk_are_split_over_messages(stage: Stage) -> None:
    pool = await stage.pool("def f(n):\n    return b'x' * n")
    await stage.place(pool)
    sizes: list[int] = []
    await stage.bus.subscribe(stage.reply, lambda message: sizes.append(len(message.data)))
    outputs = await stage.results(await stage.call(pool, *((100_000,) for _ in range(10))), 10)
    assert all(len(one.value) == 100_000 for one in outputs)
    await stage.until(lambda: sum(sizes) > 10 * 100_000)
    assert len(sizes) >= 5
    assert max(sizes) < 300_000


async def test_outputs_that_their_caller_never_says_to_have_are_stored(stage: Stage) -> None:
    pool = await stage.pool(DOUBLE)
    await stage.place(pool)
    heard: list[Outputs] = []
    direct = subjects.outputs(stage.reply)
    await stage.bus.subscribe(direct, lambda message: heard.append(coding.decode(Outputs, message.data)))
    call = await stage.call(pool, (1,), direct=True)
    await stage.until(lambda: heard)
    assert await stage.backlog(pool) == 1 or stage.terminal(call), "nobody has it, and it is acknowledged"
    assert (await stage.result(call)).value == 2
    await stage.settled(pool)
    assert {(one.worker, one.number) for one in heard} == {(stage.worker, heard[0].number)}
    assert len(heard) > 1


async def test_kept_results_are_stored_one_by_one_and_the_first_wins(stage: Stage) -> None:
    pool = await stage.pool(DOUBLE)
    await stage.place(pool)
    call = ids.new(ids.CALL)
    theirs = coding.encode(Outputs(call, 9, [], 0.0))
    await stage.bus.store(subjects.result(WORKSPACE, call, 1), theirs)
    await stage.call(pool, (1,), (2,), (3,), call=call, reply="")
    await stage.settled(pool)
    stored = {
        index: await stage.bus.last("RESULTS_main", subjects.result(WORKSPACE, call, index))
        for index in range(3)
    }
    assert stored[1] is not None
    assert stored[1].data == theirs
    for index in (0, 2):
        one = stored[index]
        assert one is not None
        (output,) = coding.decode(Outputs, one.data).items
        assert (output.index, payload.decode(*output.payload)) == (index, 2 * (index + 1))


COUNT = """
    def f(path):
        with open(path, "a") as file:
            file.write("x")
"""


async def test_a_delivery_of_a_finished_input_is_only_acknowledged(stage: Stage, folder: Any) -> None:
    pool = await stage.pool(COUNT)
    await stage.place(pool)
    path = folder / "count"
    call = await stage.call(pool, (str(path),))
    await stage.result(call)
    await stage.settled(pool)
    # Outside of the stream's memory of ids, as a late repeat after a restart of the server would be.
    chunk_subject = subjects.inputs(pool.prefix, call, 0, 0)
    form, data = payload.encode_call((str(path),), {})
    again = Chunk(call, [0], 0, stage.reply, [Payload(form, data)], 0.0)
    await stage.bus.store(chunk_subject, coding.encode(again))
    await stage.result(await stage.call(pool, (str(path),)))
    await stage.settled(pool)
    assert path.read_text() == "xx"


async def test_nothing_is_acknowledged_before_it_has_run(stage: Stage, folder: Any) -> None:
    pool = await stage.pool(
        "import os, time\ndef f(path):\n    while not os.path.exists(path): time.sleep(0.01)"
    )
    await stage.place(pool)
    gate = folder / "gate"
    call = await stage.call(pool, (str(gate),))

    async def is_leased() -> bool:
        state = await stage.bus.consumer_state(pool.stream, pool.id)
        return state is not None and state.ack_pending == 1

    await eventually(is_leased)
    await stage.until(lambda: stage.states[stage.worker].leases)
    assert not stage.terminal(call)
    gate.touch()
    await stage.result(call)
    await stage.settled(pool)


@pytest.mark.parametrize("rest", ["one", "a=b.0.0", "fc-x.99999999999999.0"])
async def test_what_lies_on_a_subject_of_no_input_is_kept_among_the_dead(stage: Stage, rest: str) -> None:
    pool = await stage.pool(DOUBLE)
    await stage.place(pool)
    await stage.bus.store(f"{pool.prefix}.{rest}", b"nonsense")
    await stage.settled(pool)
    assert await stage.bus.last("DEAD", subjects.dead(WORKSPACE, pool.id, "unknown", 0)) is not None


async def test_what_cannot_be_read_is_kept_among_the_dead(stage: Stage) -> None:
    pool = await stage.pool(DOUBLE)
    await stage.place(pool)
    call = ids.new(ids.CALL)
    await stage.bus.store(subjects.inputs(pool.prefix, call, 0, 0), b"nonsense")
    await stage.settled(pool)
    dead = await stage.bus.last("DEAD", subjects.dead(WORKSPACE, pool.id, call, 0))
    assert dead is not None
    letter = coding.decode(DeadLetter, dead.data)
    assert (letter.chunk, letter.readable, letter.app) == (b"nonsense", False, pool.app_id)


MEET = """
    import os, time
    def f(meeting):
        open(f"{meeting}/{os.getpid()}", "a").close()
        while len(os.listdir(meeting)) < 2:
            time.sleep(0.01)
"""


async def test_an_idle_container_takes_its_share_of_a_chunk(stage: Stage, tmp_path: Path) -> None:
    pool = await stage.pool(MEET)
    containers = await stage.place(pool, 2)
    call = await stage.call(pool, *((str(tmp_path),) for _ in range(8)))
    outputs = await stage.results(call, 8)  # none ends before both have begun
    assert {one.container for one in outputs} == set(containers)
    await stage.settled(pool)


@pytest.mark.parametrize("count", [7])
async def test_a_single_use_container_ends_after_one_input(stage: Stage, count: int) -> None:
    pool = await stage.pool("import os\ndef f(n):\n    return os.getpid()", single_use_containers=True)
    containers = await stage.place(pool, count)
    outputs = await stage.results(await stage.call(pool, *((n,) for n in range(count))), count)
    assert len({one.value for one in outputs}) == count
    for container in containers:
        assert (await stage.event(container, "stopped")).reason == "exited with status 0"
    await stage.settled(pool)
