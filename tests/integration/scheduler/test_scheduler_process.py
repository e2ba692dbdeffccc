"""The scheduler as processes of their own: started, asked, killed, stopped."""

import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import waiting
from played_parts import make_pool
from played_parts import until as until_true
from scheduler_stage import Parts

from tidemill._bus.protocol import BusError
from tidemill._wire import coding, subjects
from tidemill._wire.scheduling import GetSchedulerStatus, SchedulerStatus
from tidemill_common import streams
from tidemill_common.bus import nats
from tidemill_common.bus.protocol import ServiceBus
from tidemill_local.broker import Broker


@pytest.fixture
async def stage(broker: Broker) -> AsyncIterator[Parts]:
    """The other parts, on the broker that the processes find."""

    async def connect() -> ServiceBus:
        return await nats.connect(broker.url, "service", broker.settings.passwords["service"])

    parts = Parts(await connect(), connect, None)
    await streams.apply(parts.bus, "main")
    yield parts
    await parts.close()


async def status(bus: ServiceBus, above: int = 0) -> SchedulerStatus:
    """Return the status, as soon as somebody leads in a term above `above`."""

    async def ask() -> SchedulerStatus | None:
        try:
            data = await bus.request(
                subjects.scheduler("main", "status"), coding.encode(GetSchedulerStatus())
            )
        except BusError:
            return None
        answer = coding.decode(SchedulerStatus, data)
        return answer if answer.term > above else None

    answer: SchedulerStatus = await waiting.until(ask)
    return answer


async def test_it_serves_is_ready_and_ends_in_order(launch: Any, until: Any, broker: Broker) -> None:
    scheduler = launch("-m", "tidemill_scheduler")
    told = await scheduler.serving()
    assert told["name"] == "scheduler"

    async def is_ready() -> bool:
        return (await scheduler.get("/readyz"))[0] == 200

    await until(is_ready)
    _, text = await scheduler.get("/metrics")
    assert "tidemill_scheduler_leading" in text
    scheduler.send(signal.SIGTERM)
    assert await scheduler.ended() == 0


async def test_a_killed_leaders_work_goes_on_in_another_process(launch: Any, stage: Parts) -> None:
    processes = {}
    for _ in range(2):
        scheduler = launch("-m", "tidemill_scheduler")
        await scheduler.serving()
        processes[str(scheduler.process.pid)] = scheduler
    before = await status(stage.bus)
    worker = await stage.worker()
    caller = await stage.caller(make_pool())
    await caller.submit()
    await until_true(lambda: worker.containers, "a container")
    leader = next(one for pid, one in processes.items() if f"-{pid}-" in before.leader)
    await leader.kill()
    other = await stage.caller(make_pool())
    await other.submit()
    after = await status(stage.bus, above=before.term)
    assert after.leader != before.leader
    await until_true(lambda: worker.running(other.pool), "a container of the other pool")
    assert worker.running(caller.pool) == 1
