"""Who needs the broker is told at once that it is not there."""

import asyncio
from collections.abc import Mapping

import pytest
import structlog
from prometheus_client import CollectorRegistry
from waiting import until

from tidemill import exception
from tidemill._bus.protocol import PubAck, StreamFull
from tidemill._caller import Caller
from tidemill._wire import subjects
from tidemill._wire.control import CancelCall, Done, FunctionHandle
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_common.requests import Endpoints
from tidemill_gateway import calling
from tidemill_gateway.broker import Broker
from tidemill_gateway.problems import Problem
from tidemill_gateway.sessions import Session

HANDLE = FunctionHandle("fu-1", "f", "ap-1", "po-1", "tm.inputs.cpu.0.main.cpu.po-1")


async def test_waits_end_with_the_connection_and_work_after_it_is_back() -> None:
    bus = MemoryBus(MemoryServer())
    broker = Broker(bus)
    begun = asyncio.Event()

    async def need() -> None:
        async with broker.needed():
            begun.set()
            await asyncio.get_running_loop().create_future()

    waiting = asyncio.create_task(need())
    await begun.wait()
    bus.disconnect()
    with pytest.raises(Problem) as refused:
        await waiting
    assert refused.value.status_code == 503
    for _ in range(2):
        with pytest.raises(Problem):
            broker.check()
        with pytest.raises(Problem):
            await need()
    bus.reconnect()
    broker.check()
    async with broker.needed():
        pass
    await bus.close()


async def test_a_wait_that_takes_long_to_end_is_ended_once() -> None:
    bus = MemoryBus(MemoryServer())
    broker = Broker(bus)
    begun, ending, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def need() -> None:
        async with broker.needed():
            try:
                begun.set()
                await asyncio.get_running_loop().create_future()
            finally:
                ending.set()
                await may_end.wait()

    waiting = asyncio.create_task(need())
    await begun.wait()
    bus.disconnect()
    await ending.wait()
    bus.reconnect()
    bus.disconnect()
    may_end.set()
    with pytest.raises(Problem):
        await waiting
    await bus.close()


async def test_a_timeout_of_what_waits_is_its_own() -> None:
    bus = MemoryBus(MemoryServer())
    with pytest.raises(TimeoutError):
        async with Broker(bus).needed(), asyncio.timeout(0):
            await asyncio.get_running_loop().create_future()
    await bus.close()


class Stuck(MemoryBus):
    """Has nothing stored before it is connected again."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.held: list[str] = []

    def store(
        self, subject: str, data: bytes, *, msg_id: str = "", headers: Mapping[str, str] | None = None
    ) -> "asyncio.Future[PubAck]":
        self.held.append(subject)
        self._connected = False
        try:
            return super().store(subject, data, msg_id=msg_id, headers=headers)
        finally:
            self._connected = True


async def test_a_call_that_was_refused_without_a_key_is_cancelled_when_the_broker_is_back() -> None:
    server = MemoryServer()
    bus, scheduler = Stuck(server), server.connect()
    await streams.apply(scheduler, "main")
    cancelled: list[tuple[str, bool]] = []

    async def cancel(_workspace: str, request: CancelCall) -> Done:
        place = subjects.inputs(HANDLE.prefix, request.call, 0, 0)
        stored = await scheduler.last(subjects.stream_of(HANDLE.prefix), place)
        cancelled.append((place, stored is not None))
        return Done()

    make = Endpoints(structlog.get_logger(), CollectorRegistry())
    endpoint = make.endpoint("cancel", CancelCall, cancel)
    stop = await scheduler.serve(
        "scheduler", "1.0.0", {subjects.scheduler(subjects.EVERY, "cancel"): endpoint}
    )
    broker = Broker(bus)
    session = Session(bus, broker, "main", Caller(bus, "main"), "ak-main-1")

    async def start(key: str) -> None:
        async with broker.needed():
            await calling.start(session, HANDLE, [b"[[],{}]"], key, "digest")

    starting = [asyncio.create_task(start(key)) for key in ("a key", "")]
    await until(lambda: len(bus.held) == len(starting))
    bus.disconnect()
    for each in starting:
        with pytest.raises(Problem) as refused:
            await each
        assert refused.value.status_code == 503
    bus.reconnect()
    await until(lambda: cancelled)
    (queued,) = [subject for subject in bus.held if subject.startswith(HANDLE.prefix)]
    assert cancelled == [(queued, True)]
    await session.caller.close()
    await stop()


class Full(MemoryBus):
    """Has room for so many inputs."""

    room = 0

    def store(
        self, subject: str, data: bytes, *, msg_id: str = "", headers: Mapping[str, str] | None = None
    ) -> "asyncio.Future[PubAck]":
        self.room -= 1
        if self.room >= 0:
            return super().store(subject, data, msg_id=msg_id, headers=headers)
        refused: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
        refused.set_exception(StreamFull("full"))
        return refused


@pytest.mark.parametrize(("inputs", "room", "is_cancelled"), [(1, 0, False), (3, 0, False), (3, 2, True)])
async def test_a_call_is_cancelled_only_where_the_queue_has_taken_something_of_it(
    inputs: int, room: int, is_cancelled: bool
) -> None:
    bus = Full(MemoryServer())
    await streams.apply(bus, "main")
    bus.room = room
    caller = Caller(bus, "main")
    session = Session(bus, Broker(bus), "main", caller, "ak-main-1")
    with pytest.raises(exception.ResourceExhaustedError):
        await calling.start(session, HANDLE, [b"[[],{}]"] * inputs, "", "digest")
    assert any(task.get_name().startswith("cancel ") for task in caller._tasks) is is_cancelled
    await caller.close()
    await bus.close()
