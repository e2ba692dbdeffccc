"""What one replica of the scheduler has, whether it leads or not."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_scheduler.metrics import Metrics
from tidemill_scheduler.pools import Directory
from tidemill_scheduler.records import Records
from tidemill_scheduler.workers import Fleet

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Replica:
    """The connection and the read models that every part shares. `clock` is monotonic, in seconds."""

    id: str
    bus: ServiceBus
    fleet: Fleet
    directory: Directory
    log: Logger
    metrics: Metrics
    records: Records
    max_queued: int
    clock: Clock = time.monotonic
