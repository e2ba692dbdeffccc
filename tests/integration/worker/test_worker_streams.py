"""Generators with credit, and the output of user code."""

import re

from worker_stage import Stage, eventually

from tidemill import exception
from tidemill._wire import payload
from tidemill._wire.messages import Status
from tidemill._wire.payload import INLINE_LIMIT
from tidemill._wire.subjects import logs

COUNT = "def f(n):\n    yield from range(n)"


def pieces(stage: Stage, call: str) -> list[tuple[int, object]]:
    """Return the pieces of a stream as (number, value), by number."""
    found = {
        one.output.piece: one.value
        for one in stage.outputs
        if one.call == call and one.output.status == Status.YIELD
    }
    return sorted(found.items())


async def test_a_generator_streams_its_values_and_says_how_many(stage: Stage) -> None:
    pool = await stage.pool(COUNT, is_generator=True)
    await stage.place(pool)
    call = await stage.call(pool, (10,))
    done = await stage.result(call)
    assert (done.output.status, done.output.piece) == (Status.DONE, 10)
    assert pieces(stage, call) == [(n, n) for n in range(10)]
    await stage.settled(pool)


async def test_a_generator_goes_no_further_than_its_credit(stage: Stage) -> None:
    pool = await stage.pool(COUNT, is_generator=True)
    await stage.place(pool)
    call = await stage.call(pool, (3_000,))
    await stage.until(lambda: len(pieces(stage, call)) == 1_024)
    report = stage.states[stage.worker]
    await stage.until(lambda: stage.states[stage.worker] is not report)  # nothing more came meanwhile
    assert len(pieces(stage, call)) == 1_024
    for credit in (2_000, 1_500, 2_000):  # the middle one is late, the last one a repeat
        stage.grant(call, 0, credit)
    await stage.until(lambda: len(pieces(stage, call)) == 2_000)
    stage.grant(call, 0, 10_000)
    assert (await stage.result(call)).output.piece == 3_000
    assert pieces(stage, call) == [(n, n) for n in range(3_000)]
    await stage.settled(pool)


async def test_an_async_generator_streams_too(stage: Stage) -> None:
    pool = await stage.pool(
        """
        import asyncio
        async def f(n):
            for i in range(n):
                await asyncio.sleep(0)
                yield i
        """,
        is_generator=True,
    )
    await stage.place(pool)
    call = await stage.call(pool, (2_000,))
    await stage.until(lambda: len(pieces(stage, call)) == 1_024)
    stage.grant(call, 0, 5_000)
    assert (await stage.result(call)).output.piece == 2_000


async def test_a_generator_that_fails_sends_what_it_had_and_the_failure(stage: Stage) -> None:
    pool = await stage.pool(
        "def f():\n    yield 1\n    yield 2\n    raise OSError('torn')", is_generator=True
    )
    await stage.place(pool)
    call = await stage.call(pool, ())
    failed = await stage.result(call)
    assert isinstance(failed.error, OSError)
    assert failed.output.piece == 2
    assert pieces(stage, call) == [(0, 1), (1, 2)]


async def test_large_pieces_travel_through_the_object_store(stage: Stage) -> None:
    code = f"def f(n):\n    for i in range(n): yield b'x' * {INLINE_LIMIT + 1}"
    pool = await stage.pool(code, is_generator=True)
    await stage.place(pool)
    call = await stage.call(pool, (4,))
    assert (await stage.result(call)).output.piece == 4
    await stage.until(lambda: len([one for one in stage.outputs if one.output.status == Status.YIELD]) == 4)
    blobs = [one.output.payload.data for one in stage.outputs if one.output.status == Status.YIELD]
    assert all(not isinstance(blob, bytes) and blob.size > INLINE_LIMIT for blob in blobs)
    await stage.settled(pool)


async def test_a_generator_past_its_timeout_ends(stage: Stage) -> None:
    pool = await stage.pool(
        "import time\ndef f():\n    yield 1\n    time.sleep(60)", is_generator=True, timeout=1.0
    )
    await stage.place(pool)
    call = await stage.call(pool, ())
    output = await stage.result(call)
    assert isinstance(output.error, exception.FunctionTimeoutError)
    assert output.output.piece == len(pieces(stage, call))


async def test_text_arrives_before_the_result_it_belongs_to(stage: Stage) -> None:
    pool = await stage.pool("def f(n):\n    print('hello', n)\n    return n")
    (container,) = await stage.place(pool)
    for number in range(5):
        call = await stage.call(pool, (number,))
        await stage.result(call)
    told = [
        what.text if kind == "log" else f"returned {what.value}\n"
        for kind, what in stage.order
        if kind == "output" or what.stream == 1
    ]
    assert "".join(told) == "".join(f"hello {number}\nreturned {number}\n" for number in range(5))
    (first, *_) = [record for record in stage.logs if record.stream == 1]
    assert (first.function, first.container) == ("f", container)
    assert first.input.endswith("-0")


async def test_output_of_subprocesses_is_there_and_in_the_stream(stage: Stage) -> None:
    pool = await stage.pool(
        "import os, subprocess\n"
        "def f():\n"
        "    subprocess.run(['echo', 'from below'])\n"
        "    os.write(2, b'raw\\n')"
    )
    (container,) = await stage.place(pool)
    await stage.result(await stage.call(pool, ()))
    await stage.until(lambda: "from below\n" in stage.text() and "raw\n" in stage.text())
    subject = logs(pool.workspace, pool.app_id, pool.id, container)
    await eventually(lambda: stage.bus.last("LOGS_main", subject))  # who listens may hear of it before


async def test_much_output_is_all_there_or_said_to_be_dropped(stage: Stage) -> None:
    pool = await stage.pool("def f(n):\n    for i in range(n): print('x' * 1000)\n    return n")
    (container,) = await stage.place(pool)
    assert (await stage.result(await stage.call(pool, (20_000,)))).value == 20_000

    def all_told() -> bool:
        there = sum(record.text.count("\n") for record in stage.logs if record.stream == 1)
        gaps = [int(lines) for lines in re.findall(r"\[(\d+) lines dropped\]", stage.text(container))]
        return 20_000 <= there + sum(gaps) <= 20_000 + gaps.count(1)  # a piece of a line is told as one

    await stage.until(all_told)


async def test_a_value_is_what_it_was(stage: Stage) -> None:
    pool = await stage.pool("def f(*args, **kwargs):\n    return args, kwargs")
    await stage.place(pool)
    value = (1, "two", None, {"three": [3.0, b"4"]}, {5, 6})
    output = await stage.result(await stage.call(pool, value))
    assert payload.decode(output.output.payload.format, output.output.payload.data) == (value, {})  # type: ignore[arg-type]
