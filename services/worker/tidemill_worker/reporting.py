"""What the worker tells of itself: each second, soon after each change, and into a bucket.

A change is told 10 ms later, with all that happened meanwhile; under load, where containers change
between idle and busy thousands of times a second, twenty times a second at most. Inputs that are still
held after 0.2 s are told too: should the worker die, they are handed to others at once.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec

from tidemill._bus.protocol import BusError, Disconnected
from tidemill._wire import subjects
from tidemill._wire.scheduling import WorkerState
from tidemill_common import streams
from tidemill_worker.leases import REPORTED_AFTER, Leases
from tidemill_worker.node import Node

EVERY = 1.0  # seconds between two reports without any change
COALESCE = 0.01  # seconds from a change to its report
AT_MOST_EVERY = 0.05  # seconds between two reports
BUCKET_EVERY = 5.0
GOODBYE = 5.0  # seconds for the record to be taken away

_encode = msgspec.msgpack.Encoder().encode  # as `coding` does, without holding the loop up for a millisecond


class Reporter:
    """Publishes the worker's state."""

    def __init__(self, node: Node, state: Callable[[], WorkerState], leases: Leases) -> None:
        self._node = node
        self._state = state
        self._leases = leases
        self._loop = asyncio.get_running_loop()
        self._told = 0.0
        self._soon: asyncio.TimerHandle | None = None
        self._leaving = False

    def changed(self) -> None:
        """Report soon."""
        due = max(self._loop.time() + COALESCE, self._told + AT_MOST_EVERY)
        if self._soon is None or self._soon.when() > due:
            if self._soon is not None:
                self._soon.cancel()
            self._soon = self._loop.call_at(due, self.tell)

    def tell(self) -> None:
        """Report now."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._told = self._loop.time()
        state = self._state()
        with suppress(Disconnected):  # the next report comes within a second
            self._node.bus.publish(subjects.worker_state(self._node.id), _encode(state))
        if len(state.leases) < len(self._leases.held):
            self._soon = self._loop.call_later(REPORTED_AFTER, self.tell)

    async def run(self) -> None:
        """Report for ever."""
        record_at = 0.0
        while True:
            self.tell()
            if self._loop.time() >= record_at and not self._leaving:
                record_at = self._loop.time() + BUCKET_EVERY
                await self._record()
            await asyncio.sleep(EVERY)

    async def _record(self) -> None:
        """Write the state where a new leader finds it."""
        bucket = self._node.bus.bucket(streams.WORKERS)
        try:
            async with asyncio.timeout(EVERY):
                await bucket.put(self._node.id, _encode(self._state()))
        except (BusError, TimeoutError) as error:
            self._node.log.debug("the worker's record is not stored", error=str(error))

    async def say_goodbye(self) -> None:
        """Report for the last time, and take the record away."""
        self._leaving = True
        self.tell()
        with suppress(BusError, TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await self._node.bus.bucket(streams.WORKERS).delete(self._node.id)
