"""Processes in containers and lent terminals, on a real worker: who asks is played by the test."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from worker_stage import WORKSPACE, Stage, eventually

from tidemill import exception
from tidemill._bus.protocol import Message, RequestFailed
from tidemill._duplex import Duplex, on_bus
from tidemill._wire import coding, ids, subjects
from tidemill._wire.containers import AskTerminal, Execute
from tidemill._wire.duplex import PIECE_TO_CONTAINER
from tidemill._wire.messages import Status
from tidemill._wire.specs import Pool

LIMIT = 60.0  # seconds
CODE = "def f(x=0): return x + 1"
ASKING = """
import tidemill
def f(question):
    answer = input(question)
    return answer
"""


@asynccontextmanager
async def process(stage: Stage, container: str, *arguments: str, **order: Any) -> AsyncIterator[Duplex]:
    """Hold the stream of a process in a container."""
    stream = ids.new(ids.STREAM)
    async with on_bus(stage.bus, WORKSPACE, stream, is_client=True, piece=PIECE_TO_CONTAINER) as end:
        asked = Execute(container, stream, arguments, **order)
        subject = subjects.worker(stage.worker, "execute")
        await stage.bus.request(subject, coding.encode(asked), timeout=LIMIT)
        end.open()
        yield end


async def output(end: Duplex, until: bytes = b"") -> bytes:
    """Return what comes on standard output, to its end or until something was seen."""
    seen = bytearray()
    async with asyncio.timeout(LIMIT):
        while not (until and until in seen) and (piece := await end.receive()) is not None:
            seen += piece.data if piece.tag == 1 else b""
    return bytes(seen)


async def placed(stage: Stage, code: str = CODE, **spec: Any) -> tuple[Pool, str]:
    pool = await stage.pool(code, **spec)
    (container,) = await stage.place(pool)
    return pool, container


def is_running(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


async def gone(pid: int) -> None:
    async def is_gone() -> bool:
        return not is_running(pid)

    await eventually(is_gone, LIMIT)


# --- processes


async def test_a_process_has_input_output_and_a_status(stage: Stage) -> None:
    _, container = await placed(stage, env={"OF_THE_FUNCTION": "yes"})
    script = "read line; echo $line $OF_THE_FUNCTION $ADDED; pwd; exit 4"
    async with process(stage, container, "sh", "-c", script, variables={"ADDED": "too"}) as end:
        await end.send(b"hello\n")
        end.end()
        lines = (await output(end)).decode().splitlines()
    assert lines[0] == "hello yes too"
    assert container in lines[1]
    assert end.word == 4


async def test_a_process_on_a_stream_that_cannot_be_is_refused_at_once(stage: Stage) -> None:
    _, container = await placed(stage)
    order = coding.encode(Execute(container, "a.b", ("true",)))
    with pytest.raises(RequestFailed) as caught:
        await stage.bus.request(subjects.worker(stage.worker, "execute"), order, timeout=LIMIT)
    assert caught.value.code == "invalid"


async def test_megabytes_pass_both_ways_and_the_container_goes_on_working(stage: Stage) -> None:
    pool, container = await placed(stage)
    data = os.urandom(5_000_000)
    async with process(stage, container, "cat") as end:

        async def write() -> None:
            await end.send(data)
            end.end()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            echoed = tasks.create_task(output(end))
            called = tasks.create_task(stage.call(pool, (1,)))
        assert echoed.result() == data
        assert (await stage.result(called.result())).value == 2


async def test_a_process_ends_when_who_asked_for_it_leaves(stage: Stage) -> None:
    _, container = await placed(stage)
    async with process(stage, container, "sh", "-c", "echo $$; sleep 1000") as end:
        pid = int(await output(end, b"\n"))
    await gone(pid)


async def test_a_reader_who_reads_nothing_stops_the_process_and_is_told_everything_later(
    stage: Stage,
) -> None:
    _, container = await placed(stage)
    async with process(stage, container, "sh", "-c", "echo $$; exec head -c 20000000 /dev/zero") as end:
        first = await output(end, b"\n")
        pid = int(first.partition(b"\n")[0])
        await eventually(lambda: _sleeps(pid), LIMIT)
        rest = await output(end)
    assert len(first) + len(rest) == 20_000_000 + len(f"{pid}\n")
    assert end.word == 0


async def _sleeps(pid: int) -> bool:
    """Return whether a process waits for somebody to read its pipe."""
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text()


async def test_a_process_that_is_killed_with_its_container_has_a_status_or_an_error(stage: Stage) -> None:
    _, container = await placed(stage)
    async with process(stage, container, "sleep", "1000") as end:
        await stage.stop(container, graceful=False)
        with suppress(exception.ServiceError):
            await output(end)
        assert end.word == -9 or "ended" in str(end.error)


async def test_in_a_container_that_is_not_here_nothing_is_started(stage: Stage) -> None:
    with pytest.raises(RequestFailed, match="does not run") as caught:
        async with process(stage, ids.new(ids.CONTAINER), "true"):
            pass
    assert caught.value.code == "not_found"


async def test_a_container_has_no_more_processes_than_it_may(stage: Stage) -> None:
    _, container = await placed(stage)
    async with process(stage, container, "sleep", "1000"):
        ends = [process(stage, container, "sleep", "1000") for _ in range(63)]
        for end in ends:
            await end.__aenter__()
        with pytest.raises(RequestFailed) as caught:
            async with process(stage, container, "true"):
                pass
        for end in ends:
            await end.__aexit__(None, None, None)
    assert caught.value.code == "resource_exhausted"


# --- terminals


class Caller:
    """The caller of an interactive run."""

    def __init__(self, stage: Stage, pool: Pool) -> None:
        self._stage = stage
        self._pool = pool
        self.asked: asyncio.Future[AskTerminal] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        await self._stage.bus.subscribe(subjects.terminal(WORKSPACE, self._pool.app_id), self._on_ask)

    def _on_ask(self, message: Message) -> None:
        self.asked.set_result(coding.decode(AskTerminal, message.data))

    @asynccontextmanager
    async def answer(self) -> AsyncIterator[Duplex]:
        async with asyncio.timeout(LIMIT):
            asked = await self.asked
        async with on_bus(self._stage.bus, WORKSPACE, asked.stream, is_client=True) as end:
            end.open()
            yield end

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Duplex]:
        async with self.answer() as end:
            end.control("lend", [30, 100, "xterm"])
            yield end


async def test_an_input_is_asked_at_the_callers_terminal(stage: Stage) -> None:
    pool, container = await placed(stage, ASKING, interactive=True)
    caller = Caller(stage, pool)
    await caller.open()
    call = await stage.call(pool, ("who? ",))
    async with caller.lend() as end:
        assert (await caller.asked).container == container
        await output(end, b"who? ")
        await end.send(b"Ada\n")
        assert await output(end) == b"Ada\r\n"  # the echo, then the terminal comes back
        assert call not in {one.call for one in stage.outputs}, "the result waits for the terminal"
        end.end()
    assert (await stage.result(call)).value == "Ada"


@pytest.mark.long
async def test_a_caller_that_is_not_there_is_an_error_of_the_input(stage: Stage) -> None:
    pool, _ = await placed(stage, ASKING, interactive=True)
    call = await stage.call(pool, ("who? ",))
    (result,) = await stage.results(call, timeout=LIMIT)  # after 10 seconds
    assert isinstance(result.error, exception.InteractiveTimeoutError)


async def test_a_caller_may_refuse(stage: Stage) -> None:
    pool, _ = await placed(stage, ASKING, interactive=True)
    caller = Caller(stage, pool)
    await caller.open()
    call = await stage.call(pool, ("who? ",))
    async with caller.answer() as end:
        end.abort(exception.ConflictError("another input has it"))
    error = (await stage.result(call)).error
    assert isinstance(error, exception.ConflictError)
    assert "another input has it" in str(error)


async def test_a_caller_that_leaves_ends_the_input_that_had_its_terminal(stage: Stage) -> None:
    pool, container = await placed(stage, ASKING, interactive=True)
    caller = Caller(stage, pool)
    await caller.open()
    call = await stage.call(pool, ("who? ",))
    async with caller.lend() as end:
        await output(end, b"who? ")
    result = await stage.result(call)
    assert result.output.status == Status.FAILURE
    assert "SIGHUP" in str(result.error)
    assert (await stage.event(container, "stopped")).state == "stopped"
