"""Containers that are to be there before a version serves."""

import asyncio
from contextlib import suppress

from played_parts import BOUND, make_pool, publish_pool, until
from scheduler_stage import Parts

from tidemill._bus.protocol import NoResponder
from tidemill._wire import coding, subjects
from tidemill._wire.scheduling import MakeReady, ReadyCounts

LONG = 60.0  # seconds for which deployments would wait: longer than anything here may take


async def test_two_deployments_of_a_pool_wait_for_its_containers_together(parts: Parts) -> None:
    await parts.scheduler()
    worker, pool = await parts.worker(), make_pool()
    worker.ready_at_once = False
    await publish_pool(parts.bus, pool)

    subject = subjects.internal("scheduler", "make_ready")

    async def make_ready(count: int) -> ReadyCounts:
        request = coding.encode(MakeReady({pool.id: count}, LONG))
        return coding.decode(ReadyCounts, await parts.bus.request(subject, request, timeout=BOUND))

    async def is_served() -> bool:
        with suppress(NoResponder):
            await parts.bus.request(subject, coding.encode(MakeReady({}, 0.0)), timeout=BOUND)
            return True
        return False

    await until(is_served, "the leader's answers")
    first = asyncio.create_task(make_ready(1))
    await until(lambda: len(worker.starting) >= 1, "the first one's container")
    second = asyncio.create_task(make_ready(2))
    await until(lambda: len(worker.starting) >= 2, "one more for the second")
    worker.set_all("idle")
    for answer in await asyncio.gather(first, second):  # before the time is over for which they would wait
        assert answer.counts.keys() == {pool.id}
