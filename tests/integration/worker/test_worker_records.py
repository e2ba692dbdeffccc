"""What the worker tells of its inputs, and which of them it buries."""

import dataclasses
import os
import signal
import time
from typing import Any

from worker_stage import WORKSPACE, Stage, eventually

from tidemill._wire import coding, failure, ids, phases, subjects
from tidemill._wire.calls import DeadLetter, InputRecord, RecordBatch, State, runs_of
from tidemill._wire.control import FunctionHandle
from tidemill._wire.messages import Chunk, Try
from tidemill._wire.phases import MOMENTS
from tidemill._wire.scheduling import Cancelled
from tidemill._wire.specs import Pool, RetryPolicy

DIVIDE = "def f(x):\n    return 1 / x"


async def records(stage: Stage, call: str) -> list[InputRecord]:
    """Return what was told of a call so far."""
    found = stage.bus.read(subjects.events_stream(WORKSPACE), subjects.records(WORKSPACE))
    batches = [coding.decode(RecordBatch, stored.data) async for stored in found]
    return [record for batch in batches for record in batch.records if record.call == call]


async def told(stage: Stage, call: str, *states: State) -> list[InputRecord]:
    """Return the records of a call when they are of these states. Whatever is slow is told of."""

    async def complete() -> list[InputRecord] | None:
        found = await records(stage, call)
        if State.STARTED not in states:
            found = [record for record in found if record.state != State.STARTED]
        return found if [record.state for record in found] == list(states) else None

    result: list[InputRecord] = await eventually(complete)
    return result


async def letters(stage: Stage, pool: Pool) -> list[DeadLetter]:
    found = stage.bus.read("DEAD", subjects.ALL_DEAD)
    read = [coding.decode(DeadLetter, stored.data) async for stored in found]
    return [letter for letter in read if letter.pool == pool.id]


async def test_inputs_that_finish_together_are_one_record(stage: Stage) -> None:
    pool = await stage.pool("def f(x):\n    return x")
    (container,) = await stage.place(pool)
    began = time.time()
    call = await stage.call(pool, *((n,) for n in range(50)), parent="in-1-0", root="fc-1")
    await stage.results(call, 50)

    async def complete() -> list[InputRecord] | None:
        found = [record for record in await records(stage, call) if record.state != State.STARTED]
        return found if sum(sum(record.runs[1::2]) for record in found) == 50 else None

    found: list[InputRecord] = await eventually(complete)
    assert len(found) < 50
    for record in found:
        assert (record.state, record.attempt, record.pool) == (State.SUCCESS, 0, pool.id)
        assert (record.parent, record.root, record.container) == ("in-1-0", "fc-1", container)
        assert began <= record.queued <= record.started <= record.finished <= time.time()


async def test_an_input_that_waited_for_a_start_is_told_its_moments_and_no_later_one(stage: Stage) -> None:
    pool = await stage.pool("import time\ntime.sleep(0.05)\ndef f():\n    pass")
    first = await stage.call(pool, ())
    await stage.place(pool)
    (cold,) = await told(stage, first, State.SUCCESS)
    assert len(cold.moments) == MOMENTS
    assert cold.queued <= cold.moments[0]
    assert list(cold.moments) == sorted(cold.moments)
    spent = phases.of(cold.queued, cold.started, cold.finished, cold.moments)
    assert spent["import"] >= 0.05
    (warm,) = await told(stage, await stage.call(pool, ()), State.SUCCESS)
    assert warm.moments == ()


async def test_an_input_that_runs_for_long_is_told_before_it_ends(stage: Stage, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    pool = await stage.pool(
        f"import os, time\ndef f():\n    while not os.path.exists({str(gate)!r}):\n        time.sleep(0.01)"
    )
    (container,) = await stage.place(pool)
    call = await stage.call(pool, ())
    (running,) = await told(stage, call, State.STARTED)
    assert (running.container, running.runs, running.finished) == (container, [0, 1], 0.0)
    gate.touch()
    _, ended = await told(stage, call, State.STARTED, State.SUCCESS)
    for told_of in (running, ended):
        assert told_of.queued <= told_of.started < ended.finished


async def test_attempts_in_vain_are_told_and_the_last_is_buried_with_all(stage: Stage) -> None:
    pool = await stage.pool(DIVIDE, retries=RetryPolicy(1, 1.0, 0.0, 60.0))
    (container,) = await stage.place(pool)
    call = await stage.call(pool, (0,))
    (tried,) = await told(stage, call, State.RETRIED)
    assert tried.reason == "ZeroDivisionError: division by zero"

    async def due() -> Chunk | None:
        stored = await stage.bus.last("TIMERS", subjects.due(WORKSPACE, call, 0, 1))
        return coding.decode(Chunk, stored.data) if stored else None

    second: Chunk = await eventually(due)
    (earlier,) = second.tries
    assert (earlier.attempt, earlier.container, earlier.reason) == (0, container, tried.reason)
    subject = subjects.inputs(pool.prefix, call, 0, 1)
    await stage.bus.store(subject, coding.encode(second), msg_id=subjects.input_key(call, 0, 1))
    await stage.result(call)
    await told(stage, call, State.RETRIED, State.FAILURE)
    await eventually(lambda: letters(stage, pool))
    (letter,) = await letters(stage, pool)
    assert (letter.call, letter.index, letter.app) == (call, 0, pool.app_id)
    assert letter.reason == "failed 2 times: no retry is left"
    assert failure.message_of(letter.failure) == tried.reason
    buried = coding.decode(Chunk, letter.chunk)
    assert [one.attempt for one in buried.tries] == [0, 1]
    assert buried.inputs == second.inputs


async def test_what_a_function_raises_without_retries_is_an_answer_and_not_buried(stage: Stage) -> None:
    pool = await stage.pool(DIVIDE)
    await stage.place(pool)
    call = await stage.call(pool, (0,))
    (ended,) = await told(stage, call, State.FAILURE)
    assert ended.reason == "ZeroDivisionError: division by zero"
    await stage.settled(pool)
    assert not await letters(stage, pool)


async def test_an_input_that_crashed_its_container_is_buried(stage: Stage) -> None:
    pool = await stage.pool("import os\ndef f():\n    os._exit(7)")
    (container,) = await stage.place(pool)
    call = await stage.call(pool, ())
    (ended,) = await told(stage, call, State.FAILURE)
    assert (ended.container, ended.reason) == (
        container,
        "RemoteError: the container exited with status 7 during the input",
    )
    (letter,) = await eventually(lambda: letters(stage, pool))
    assert letter.reason == "its container crashed"


async def test_an_input_that_was_lost_too_often_is_buried(stage: Stage) -> None:
    pool = await stage.pool("import os, time\ndef f():\n    time.sleep(60)")
    (container,) = await stage.place(pool)
    earlier = Try(8, "co-before", 1.0, 2.0, "lost with its container")
    call = await stage.call(pool, (), losses=8, attempt=9, tries=(earlier,))
    await told(stage, call, State.STARTED)
    pid = await stage.until(lambda: stage.pid(container))  # of 0, the group of this process would be meant
    os.kill(pid, signal.SIGKILL)
    (letter,) = await eventually(lambda: letters(stage, pool))
    assert letter.reason == "the input was lost with its container 9 times in a row"
    first, last = coding.decode(Chunk, letter.chunk).tries
    assert (first, last.container, last.attempt) == (earlier, container, 9)


async def test_what_is_cancelled_is_told_and_not_buried(stage: Stage) -> None:
    pool = await stage.pool("import time\ndef f():\n    time.sleep(60)", retries=RetryPolicy(3))
    await stage.place(pool)
    call = await stage.call(pool, ())
    await told(stage, call, State.STARTED)
    stage.bus.publish(subjects.cancel(WORKSPACE, call), coding.encode(Cancelled(WORKSPACE, call)))
    await told(stage, call, State.STARTED, State.CANCELLED)
    assert not await letters(stage, pool)


async def test_a_call_from_inside_is_told_before_anybody_takes_it(stage: Stage) -> None:
    inner = await stage.pool("def f(x):\n    return x")
    outer = await stage.pool(
        """
    import tidemill

    def f(app, name):
        call = tidemill.Function.from_name(app, name)
        call._handle = __import__("tidemill")._runtime.container.handles[name]
        return call.spawn(1).object_id
    """
    )
    handle = FunctionHandle("fu-1", "inner", inner.app_id, inner.id, inner.prefix)
    outer = dataclasses.replace(outer, handles={"inner": handle})
    await stage.place(outer)
    call = await stage.call(outer, ("app", "inner"))
    spawned = (await stage.result(call)).value
    (queued,) = await told(stage, spawned, State.QUEUED)
    assert (queued.pool, queued.parent, queued.root) == (inner.id, ids.input_id(call, 0), call)
    assert (queued.container, queued.runs) == ("", runs_of([0]))
