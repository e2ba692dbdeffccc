"""What the parts of one worker share."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_worker.deadlines import Deadlines
from tidemill_worker.metrics import Metrics
from tidemill_worker.recent import Recent
from tidemill_worker.records import Records
from tidemill_worker.web_streams import WebStreams

REMEMBERED = 10_000  # inputs that were finished, calls that were cancelled


@dataclass(slots=True)
class Node:
    """One worker: its connection, its clock, its tasks, and what it must not forget.

    `on_change` is rung when a container's state changes, or when work was taken.
    """

    id: str
    bus: ServiceBus
    log: Logger
    metrics: Metrics
    tasks: asyncio.TaskGroup
    records: Records
    web: WebStreams = field(init=False)
    deadlines: Deadlines = field(default_factory=Deadlines)
    finished: Recent = field(default_factory=lambda: Recent(REMEMBERED))
    cancelled: Recent = field(default_factory=lambda: Recent(REMEMBERED))
    on_change: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.web = WebStreams(self.id, self.bus)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something in a task of the worker. Its failure is logged and ends nothing else."""
        return self.tasks.create_task(self._guarded(work, name), name=name)

    async def _guarded(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception:
            self.log.exception("a task failed", task=name)
