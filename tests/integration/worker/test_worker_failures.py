"""Whatever happens to a container, each of its inputs gets the fate that it deserves."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from worker_stage import WORKSPACE, Stage, eventually

from tidemill import exception
from tidemill._container.processes import descendants
from tidemill._wire import coding, ids, subjects
from tidemill._wire.messages import Chunk, Status
from tidemill._wire.scheduling import Cancelled
from tidemill._wire.specs import RetryPolicy

TOLD = "import os, time\ndef f():\n    print(os.getpid(), flush=True)\n    time.sleep(60)"
EXIT = """
    import os, time
    def f(status):
        if status is not None:
            os._exit(status)
        return "fine"
"""


async def stored(stage: Stage, stream: str, subject: str) -> list[Any]:
    return [one async for one in stage.bus.read(stream, subject)]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def gone(*pids: int) -> None:
    async def are_gone() -> bool:
        return not any(map(alive, pids))

    await eventually(are_gone)


# --- retries


async def test_a_failure_with_retries_left_waits_in_the_timers(stage: Stage) -> None:
    pool = await stage.pool("def f(x):\n    return 1 / x", retries=RetryPolicy(2, 2.0, 30.0, 60.0))
    await stage.place(pool)
    call = await stage.call(pool, (1,), (0,), (1,), failures=1, losses=3)
    await stage.settled(pool)
    assert sorted(stage.terminal(call)) == [0, 2]
    (timer,) = await stored(stage, "TIMERS", subjects.call_timers(WORKSPACE, call))
    chunk = coding.decode(Chunk, timer.data)
    assert (chunk.call, chunk.indices, chunk.attempt, chunk.failures, chunk.losses) == (call, [1], 1, 2, 0)
    assert timer.subject == subjects.timer(WORKSPACE, call, 1, 1)
    assert timer.headers["Nats-Schedule-Target"] == subjects.due(WORKSPACE, call, 1, 1)
    assert timer.headers["Tidemill-Subject"] == subjects.inputs(pool.prefix, call, 1, 1)
    assert timer.headers["Nats-Schedule"].startswith("@at ")


async def test_a_timer_comes_due_as_it_was_stored(stage: Stage) -> None:
    pool = await stage.pool("def f(x):\n    return 1 / x", retries=RetryPolicy(1, 1.0, 0.1, 60.0))
    await stage.place(pool)
    began = time.monotonic()
    call = await stage.call(pool, (0,))

    async def due() -> list[Any]:
        return await stored(stage, "TIMERS", subjects.call_due(WORKSPACE, call))

    (fired,) = await eventually(due)
    assert time.monotonic() - began > 0.9
    assert coding.decode(Chunk, fired.data).attempt == 1
    assert fired.headers["Tidemill-Subject"] == subjects.inputs(pool.prefix, call, 0, 1)


async def test_the_last_failure_is_the_output(stage: Stage) -> None:
    pool = await stage.pool("def f(x):\n    return 1 / x", retries=RetryPolicy(2))
    await stage.place(pool)
    output = await stage.result(await stage.call(pool, (0,), failures=2, attempt=2))
    assert isinstance(output.error, ZeroDivisionError)
    assert output.attempt == 2


# --- ends of containers


async def test_a_container_that_exits_during_an_input_fails_it(stage: Stage) -> None:
    pool = await stage.pool(EXIT)
    (container,) = await stage.place(pool)
    output = await stage.result(await stage.call(pool, (7,)))
    assert isinstance(output.error, exception.RemoteError)
    assert "exited with status 7 during the input" in str(output.error)
    assert (await stage.event(container, "stopped")).reason == "exited with status 7"
    await stage.settled(pool)


async def test_a_crash_is_told_as_what_it_was(stage: Stage) -> None:
    pool = await stage.pool("import os\ndef f():\n    os.kill(os.getpid(), 11)")
    await stage.place(pool)
    output = await stage.result(await stage.call(pool, ()))
    assert "crashed (segmentation fault)" in str(output.error)


async def test_only_the_input_that_ended_its_container_fails(stage: Stage) -> None:
    pool = await stage.pool(EXIT)
    await stage.place(pool, 4)
    call = await stage.call(pool, *((None,) for _ in range(9)), (3,), *((None,) for _ in range(10)))
    outputs = await stage.results(call, 20)
    assert [one.output.status for one in outputs].count(Status.FAILURE) == 1
    assert "status 3" in str(outputs[9].error)
    await stage.settled(pool)


async def test_a_lost_container_does_not_use_up_a_retry(stage: Stage) -> None:
    pool = await stage.pool(TOLD, retries=RetryPolicy(1))
    (first,) = await stage.place(pool)
    call = await stage.call(pool, ())
    await stage.until(lambda: stage.text(first))
    os.kill(int(stage.text(first)), signal.SIGKILL)
    await stage.event(first, "stopped")

    async def chunks() -> list[Chunk]:
        found = await stored(stage, pool.stream, subjects.pool_inputs(pool.prefix))
        return [coding.decode(Chunk, one.data) for one in found]

    async def again() -> Chunk | None:
        found = await chunks()  # the new attempt comes before the old one goes
        return found[0] if [one.attempt for one in found] == [1] else None

    chunk: Chunk = await eventually(again)
    assert (chunk.call, chunk.attempt, chunk.failures, chunk.losses) == (call, 1, 0, 1)
    assert not await stored(stage, "TIMERS", subjects.call_timers(WORKSPACE, call))


async def test_an_input_that_is_lost_too_often_is_given_up(stage: Stage) -> None:
    pool = await stage.pool("import os\ndef f():\n    os.kill(os.getpid(), 9)")
    await stage.place(pool)
    output = await stage.result(await stage.call(pool, (), losses=8, attempt=8))
    assert isinstance(output.error, exception.InternalFailure)
    await stage.settled(pool)


async def test_what_a_killed_init_leaves_behind_is_ended(stage: Stage) -> None:
    pool = await stage.pool(
        "import os, subprocess\n"
        "def f():\n"
        "    child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "    return os.getpid(), child.pid"
    )
    (container,) = await stage.place(pool)
    pids = (await stage.result(await stage.call(pool, ()))).value
    init = await stage.until(lambda: stage.pid(container))
    os.kill(init, signal.SIGKILL)
    assert (await stage.event(container, "stopped")).reason == "was lost"
    await gone(*pids)


async def test_a_killed_worker_leaves_no_process(own_stage: Stage, process: Any) -> None:
    pool = await own_stage.pool(
        "import os, subprocess, time\n"
        "def f():\n"
        "    subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "    print('runs', flush=True)\n"
        "    time.sleep(60)"
    )
    await own_stage.place(pool, 2)
    await own_stage.call(pool, ())
    await own_stage.until(lambda: "runs" in own_stage.text())
    tree = descendants(process.process.pid)
    assert len(tree) > 4
    await process.kill()
    await gone(*tree)


# --- timeouts


@pytest.mark.parametrize(
    "code",
    [
        "import time\ndef f():\n    time.sleep(60)",
        "def f():\n    while True: pass",
        "import asyncio\nasync def f():\n    await asyncio.sleep(60)",
        """
        import asyncio
        async def f():
            while True:
                try: await asyncio.sleep(60)
                except BaseException: pass
        """,
    ],
    ids=["sync", "busy", "async", "stubborn"],
)
async def test_an_input_past_its_timeout_ends_and_says_so(stage: Stage, code: str) -> None:
    pool = await stage.pool(code, timeout=0.3)
    await stage.place(pool)
    began = time.monotonic()
    output = await stage.result(await stage.call(pool, ()))
    assert time.monotonic() - began >= 0.3
    assert output.output.status == Status.TIMEOUT
    assert isinstance(output.error, exception.FunctionTimeoutError)
    await stage.settled(pool)


async def test_a_synchronous_function_past_its_timeout_is_dead(stage: Stage) -> None:
    pool = await stage.pool(
        "import os, subprocess, time\n"
        "def f(sleep):\n"
        "    child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "    print(os.getpid(), child.pid, flush=True)\n"
        "    time.sleep(60)",
        timeout=0.5,
    )
    (container,) = await stage.place(pool)
    await stage.result(await stage.call(pool, (1,)))
    pids = [int(word) for word in stage.text(container).split()[:2]]
    await gone(*pids)


@pytest.mark.long
async def test_inputs_behind_one_that_timed_out_run_unharmed(stage: Stage) -> None:
    code = "import time\ndef f(seconds):\n    time.sleep(seconds)\n    return seconds"
    pool = await stage.pool(code, timeout=8.0)  # the machine may stand still for some of them
    await stage.place(pool, 2)
    outputs = await stage.results(await stage.call(pool, (0.01,), (60,), (0.02,), (0.03,)), 4)
    statuses = [one.output.status for one in outputs]
    assert statuses == [Status.SUCCESS, Status.TIMEOUT, Status.SUCCESS, Status.SUCCESS]
    await stage.settled(pool)


async def test_a_timeout_with_retries_left_is_tried_again(stage: Stage) -> None:
    code = "import time\ndef f():\n    time.sleep(60)"
    pool = await stage.pool(code, timeout=0.2, retries=RetryPolicy(1, 1.0, 60.0, 60.0))
    await stage.place(pool)
    call = await stage.call(pool, ())

    async def timers() -> list[Any]:
        return await stored(stage, "TIMERS", subjects.call_timers(WORKSPACE, call))

    (timer,) = await eventually(timers)
    assert coding.decode(Chunk, timer.data).failures == 1
    await stage.settled(pool)


# --- cancelling


CANCELLABLE = {
    "sync": "import time\ndef f():\n    print('runs', flush=True)\n    time.sleep(60)",
    "async": "import asyncio\nasync def f():\n    print('runs', flush=True)\n    await asyncio.sleep(60)",
    "stubborn": """
        import time
        def f():
            while True:
                try:
                    print('runs', flush=True)
                    time.sleep(60)
                except BaseException:
                    pass
    """,
}


@pytest.mark.parametrize("kind", CANCELLABLE)
async def test_a_cancelled_call_ends_with_all_its_inputs(stage: Stage, kind: str) -> None:
    pool = await stage.pool(CANCELLABLE[kind])
    await stage.place(pool)
    call = await stage.call(pool, (), (), ())
    await stage.until(lambda: "runs" in stage.text())
    stage.bus.publish(subjects.cancel(WORKSPACE, call), coding.encode(Cancelled(WORKSPACE, call)))
    outputs = await stage.results(call, 3)
    assert {one.output.status for one in outputs} == {Status.CANCELLED}
    await stage.settled(pool)


async def test_a_container_goes_on_after_a_cancelled_input(stage: Stage) -> None:
    pool = await stage.pool(
        "import time\ndef f(n):\n    print('runs', flush=True)\n    time.sleep(n)\n    return n"
    )

    def has_ended(container: str) -> bool:
        return any(event.container == container and event.state == "stopped" for event in stage.events)

    for _ in range(3):  # a machine that stands still for longer than the grace ends it, and rightly so
        (container,) = await stage.place(pool)
        call = await stage.call(pool, (60,))
        await stage.until(lambda one=container: "runs" in stage.text(one))
        stage.bus.publish(subjects.cancel(WORKSPACE, call), coding.encode(Cancelled(WORKSPACE, call)))
        assert (await stage.result(call)).output.status == Status.CANCELLED
        after = await stage.call(pool, (0,))
        await stage.until(lambda one=container, it=after: stage.terminal(it) or has_ended(one))
        if stage.terminal(after):
            break
    result = await stage.result(after)
    assert (result.value, result.container) == (0, container)


async def test_terminating_containers_kills_them_without_a_word(stage: Stage) -> None:
    code = """
        import time
        def f():
            while True:
                try:
                    print('runs', flush=True)
                    time.sleep(60)
                except BaseException:
                    print('hears of it', flush=True)
        """
    pool = await stage.pool(code)
    (container,) = await stage.place(pool)
    call = await stage.call(pool, ())
    await stage.until(lambda: "runs" in stage.text())
    stage.bus.publish(
        subjects.cancel(WORKSPACE, call), coding.encode(Cancelled(WORKSPACE, call, terminate_containers=True))
    )
    assert (await stage.result(call)).output.status == Status.CANCELLED
    await stage.event(container, "stopped")  # what it has said came before
    assert "hears of it" not in stage.text(container)


async def test_inputs_of_a_cancelled_call_that_come_later_are_refused(stage: Stage, folder: Path) -> None:
    pool = await stage.pool("def f(path):\n    open(path, 'w').close()")
    await stage.place(pool)
    call = ids.new(ids.CALL)
    stage.bus.publish(subjects.cancel(WORKSPACE, call), coding.encode(Cancelled(WORKSPACE, call)))
    await stage.bus.flush()
    await stage.call(pool, (str(folder / "ran"),), call=call)
    assert (await stage.result(call)).output.status == Status.CANCELLED
    assert not (folder / "ran").exists()


async def test_a_broken_frame_ends_its_container_and_nothing_else(stage: Stage) -> None:
    pool = await stage.pool(
        """
        import os, stat

        def f(bad):
            for fd in range(3, 64) if bad else ():
                try:
                    if stat.S_ISSOCK(os.fstat(fd).st_mode):
                        os.write(fd, bytes([0, 0, 0, 2, 0x91, 99]))
                except OSError:
                    pass
            return os.getpid()
        """
    )
    first, second = await stage.place(pool, 2)
    output = await stage.result(await stage.call(pool, (True,)))
    assert output.output.status == Status.FAILURE
    assert "broke the protocol" in str(output.error)
    fine = await asyncio.gather(*[stage.result(await stage.call(pool, (False,))) for _ in range(3)])
    assert {one.container for one in fine} <= {first, second}
    await stage.settled(pool)


async def test_a_container_that_says_nonsense_of_its_start_ends_and_is_told(
    stage: Stage, folder: Path
) -> None:
    code = f"""
        import msgpack, os, pathlib, stat

        pathlib.Path({str(folder / "pid")!r}).write_text(str(os.getpid()))
        said = msgpack.packb([1, {{"import": "soon", "enter": 0}}])
        for fd in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    os.write(fd, len(said).to_bytes(4, "big") + said)
            except OSError:
                pass

        def f():
            pass
        """
    pool = await stage.pool(code)
    container = ids.new(ids.CONTAINER)
    assert (await stage.ask_to_place(pool, container)).accepted
    event = await stage.event(container)
    assert (event.state, "broke the protocol" in event.reason) == ("failed", True)
    pid = int((folder / "pid").read_text())
    await stage.until(lambda: not Path(f"/proc/{pid}").exists())
