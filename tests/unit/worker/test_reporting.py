"""What a worker tells of itself, to its last word."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import until

from tidemill._wire import ids, subjects
from tidemill._wire.scheduling import Capacity, WorkerState
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_worker import reporting
from tidemill_worker.reporting import Reporter

WORKER = ids.new(ids.WORKER)
ROOM = Capacity(1.0, 100)
STATE = WorkerState(WORKER, ("cpu",), {}, ROOM, ROOM, (), (), "process", 1, "host", "1")


async def test_a_worker_that_has_said_goodbye_is_not_recorded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "EVERY", 0.05)
    monkeypatch.setattr(reporting, "BUCKET_EVERY", 0.0)
    bus = MemoryBus(MemoryServer())
    await bus.ensure_bucket(streams.WORKERS)
    heard: list[Any] = []
    await bus.subscribe(subjects.worker_state(WORKER), heard.append)
    node: Any = SimpleNamespace(id=WORKER, bus=bus)
    leases: Any = SimpleNamespace(held={})
    reporter = Reporter(node, lambda: STATE, leases)
    reports = asyncio.create_task(reporter.run())

    async def is_recorded() -> bool:
        return await bus.bucket(streams.WORKERS).get(WORKER) is not None

    await until(is_recorded)
    await reporter.say_goodbye()
    told = len(heard)
    await until(lambda: len(heard) > told + 3)
    assert not await is_recorded()
    reports.cancel()
    with suppress(asyncio.CancelledError):
        await reports
