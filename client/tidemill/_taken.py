"""What this process tells workers: which of their outputs it has, so that they need not be stored."""

import asyncio
from contextlib import suppress

import msgpack

from tidemill._bus.protocol import Bus, BusError
from tidemill._wire import subjects

TOLD_AFTER = 0.01  # seconds in which outputs gather


class Taken:
    """Numbers of outputs that are here, by the worker that keeps them until it hears so."""

    def __init__(self, bus: Bus, workspace: str) -> None:
        self._bus = bus
        self._workspace = workspace
        self._loop = asyncio.get_running_loop()
        self._numbers: dict[str, list[int]] = {}

    def note(self, worker: str, number: int) -> None:
        """Let a worker know soon, whether anybody waits for this output or not."""
        if not self._numbers:
            self._loop.call_later(TOLD_AFTER, self.tell)
        self._numbers.setdefault(worker, []).append(number)

    def tell(self) -> None:
        """Let workers know now."""
        taken, self._numbers = self._numbers, {}
        for worker, numbers in taken.items():
            with suppress(BusError, ValueError):  # the worker sends the outputs again, or stores them
                self._bus.publish(subjects.taken(self._workspace, worker), msgpack.packb(numbers))
