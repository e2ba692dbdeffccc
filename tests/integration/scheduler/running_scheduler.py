"""One replica of the scheduler inside the test's process: started, drained, or killed."""

import asyncio
from typing import Any

import structlog
from played_parts import until

from tidemill._wire import ids
from tidemill_common import metrics
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.health import Health
from tidemill_common.service import Context
from tidemill_scheduler.service import Scheduler
from tidemill_scheduler.settings import Settings


class _Ended(Exception):
    """Ends the task group."""


class RunningScheduler:
    """A replica with a connection of its own."""

    def __init__(self, bus: ServiceBus, **settings: Any) -> None:
        self.bus = bus
        self.name = ids.new("re")
        self.service = Scheduler(Settings(**settings))
        self.metrics = metrics.new_registry("scheduler", "0")
        self._serving = asyncio.Event()
        self._end = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def start(self) -> "RunningScheduler":
        """Return when it serves."""
        serving = asyncio.create_task(self._serving.wait())
        await asyncio.wait({serving, self._task}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        if self._task.done():
            await self._task
        return self

    async def lead(self) -> "RunningScheduler":
        """Return when it leads."""
        await until(lambda: self.term, "leadership")
        return self

    @property
    def term(self) -> int:
        """The term it leads under, 0 when it does not."""
        return self.service.term

    @property
    def ended(self) -> bool:
        """Whether it was stopped or killed."""
        return self._task.done()

    def knows(self, worker: str) -> bool:
        """Return whether it has heard of a worker."""
        replica = self.service.replica
        return replica is not None and any(state.worker == worker for state in replica.fleet.states())

    def knows_pool(self, pool: str) -> bool:
        """Return whether it has seen the record of a pool."""
        replica = self.service.replica
        return replica is not None and pool in replica.directory.pools

    def count(self, name: str, **labels: str) -> float:
        """Return a metric."""
        return self.metrics.get_sample_value(name, labels or None) or 0.0

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                health = Health(self.metrics, self.service.ready)
                log = structlog.get_logger().bind(replica=self.name)
                context = Context(self.bus, tasks, log, self._end, self.metrics, health)
                await self.service.start(context)
                self._serving.set()
                await self._end.wait()
                await self.service.drain()
                raise _Ended
        except* _Ended:
            pass

    async def stop(self) -> None:
        """Drain it, as on SIGTERM."""
        self._end.set()
        await asyncio.wait_for(self._task, 60)

    async def kill(self) -> None:
        """End it as SIGKILL does: its connection is gone before it can say anything."""
        await self.bus.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
