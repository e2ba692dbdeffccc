"""The inputs that this worker holds: renewed from its own loop, acknowledged when all is stored.

User code cannot delay a renewal, whatever it does with its interpreter: it runs in other processes.
"""

import asyncio
import random
from collections.abc import Hashable
from contextlib import suppress

from tidemill._bus.protocol import BusError, Disconnected
from tidemill_common.bus.protocol import Delivery
from tidemill_worker.node import Node
from tidemill_worker.work import Work

RENEW_AFTER = (8.0, 10.0)  # seconds, drawn for each renewal; the lease lasts 30
LOOK_EVERY = 1.0
SLICE = 100  # renewals between two turns of the loop
REPORTED = 256  # leases that are all part of the worker's report; of more, only the older ones
REPORTED_AFTER = 0.2  # seconds of holding that make a lease an older one


class Leases:
    """All held work, by key."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.held: dict[Hashable, Work] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()

    def is_repeat(self, work: Work) -> bool:
        """Deal with a delivery of what is held or was finished here; return False for anything else.

        What is held goes on under the newer lease; what was finished is only acknowledged.
        """
        if held := self.held.get(work.key):
            held.older.append(held.delivery)
            held.delivery = work.delivery
        elif work.key in self._node.finished:
            self._ack(work.delivery)
        else:
            return False
        self._node.metrics.repeats.inc()
        return True

    def take(self, work: Work) -> None:
        """Hold work from now on; it is told soon, so that it is known what this worker took to its grave."""
        self.held[work.key] = work
        self._none_left.clear()
        self._node.on_change()

    def settle(self, work: Work) -> None:
        """Acknowledge work if nothing of it is open and everything is stored."""
        if work.open or work.stores:
            return
        if self._let_go(work):
            self._node.finished.add(work.key)
            for delivery in (*work.older, work.delivery):
                self._ack(delivery)

    def hand_back(self, work: Work) -> None:
        """Let somebody else have a whole chunk, at once and with nothing used up."""
        self._let_go(work)
        with suppress(Disconnected):  # the lease runs out instead
            for delivery in (*work.older, work.delivery):
                delivery.nak()

    async def drain(self) -> None:
        """Return when nothing is held any more."""
        await self._none_left.wait()

    def reported(self) -> tuple[str, ...]:
        """Return the names of the leases for the worker's report: all, or those held for a while."""
        if len(self.held) <= REPORTED:
            return tuple(work.delivery.ack_subject for work in self.held.values())
        before = self._node.clock() - REPORTED_AFTER
        return tuple(work.delivery.ack_subject for work in self.held.values() if work.arrived < before)

    async def renew(self) -> None:
        """Renew leases as they come due, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._node.metrics.held.set(len(self.held))
            now = self._node.clock()
            await self._renew([work for work in self.held.values() if work.renew_at <= now])

    async def _renew(self, due: list[Work]) -> None:
        for number, work in enumerate(due, 1):
            if work.key not in self.held:
                continue
            try:
                work.delivery.renew()
            except Disconnected:
                return  # the bus renews all of them after the reconnect
            work.renew_at = self._node.clock() + random.uniform(*RENEW_AFTER)  # noqa: S311
            if number % SLICE == 0:
                await asyncio.sleep(0)

    def _let_go(self, work: Work) -> bool:
        """Hold work no more; return whether it was held."""
        found = self.held.pop(work.key, None) is not None
        if not self.held:
            self._none_left.set()
        return found

    def _ack(self, delivery: Delivery) -> None:
        delivery.ack().add_done_callback(self._acked)

    def _acked(self, answer: "asyncio.Future[None]") -> None:
        if not answer.cancelled() and (error := answer.exception()):
            level = self._node.log.warning if isinstance(error, BusError) else self._node.log.error
            level("an input was not acknowledged and will come again", error=str(error))
