"""Who needs the broker is told at once that it is not there."""

import asyncio

import pytest

from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_gateway.broker import Broker
from tidemill_gateway.problems import Problem


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
