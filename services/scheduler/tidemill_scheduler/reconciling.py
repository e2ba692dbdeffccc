"""The slow comparison of what is with what should be; each repair is counted.

Bells, reports and events may be lost; nothing that matters depends on hearing each of them once.
"""

import asyncio
from collections import deque
from typing import Protocol

from tidemill._bus.protocol import BusError
from tidemill._wire import subjects
from tidemill._wire.specs import Pool
from tidemill_scheduler.placements import Placer
from tidemill_scheduler.replica import Replica

EVERY = 1.0  # seconds between rounds
SWEEP = 10  # pools without a loop that are looked at in one round
FIRST_SWEEP = 500  # the same in a leader's first round: it has heard no bell of its predecessor


class Pools(Protocol):
    """The loops of the pools."""

    def ring(self, pool: str, *, demand: bool = False) -> None:
        """Wake a pool's loop, made if it has none."""

    def has_loop(self, pool: str) -> bool:
        """Return whether a pool is looked after."""


class Reconciler:
    """Compares pools, containers and queues under one term."""

    def __init__(self, replica: Replica, placer: Placer, pools: Pools) -> None:
        self._replica = replica
        self._placer = placer
        self._pools = pools
        self._round: deque[str] = deque()

    async def run(self) -> None:
        """Compare for ever."""
        sweep = FIRST_SWEEP
        while True:
            try:
                self._lost_placements()
                await self._orphans()
                self._unattended()
                await self._sweep(sweep)
                sweep = SWEEP
            except BusError as error:
                self._replica.log.warning("nothing can be compared now", error=str(error))
            await asyncio.sleep(EVERY)

    def _repaired(self, kind: str, **what: object) -> None:
        self._replica.metrics.repairs.labels(kind).inc()
        self._replica.log.warning("repaired", kind=kind, **what)

    def _lost_placements(self) -> None:
        """Decide again about containers that were asked for and that no report shows."""
        for container in self._replica.fleet.unreported():
            self._repaired("lost_placement", pool=container.pool, worker=container.worker)
            self._pools.ring(container.pool)

    async def _orphans(self) -> None:
        """Stop containers whose pool is gone: its end was not heard, or a stop did not arrive."""
        fleet, directory = self._replica.fleet, self._replica.directory
        for pool in fleet.active_pools():
            if pool in directory.pools or await directory.read(pool):
                continue
            containers = tuple(
                view.container for view in fleet.containers(pool) if view.phase is not view.phase.STOPPING
            )
            if containers:
                self._repaired("orphans", pool=pool, containers=len(containers))
                await self._placer.stop(containers, "gone", graceful=False)

    def _unattended(self) -> None:
        """Make a loop for pools that have containers, or should have, and none that decides."""
        directory = self._replica.directory
        for pool in directory.wanting | self._replica.fleet.active_pools():
            if pool in directory.pools and not self._pools.has_loop(pool):
                self._repaired("unattended", pool=pool)
                self._pools.ring(pool)

    async def _sweep(self, count: int) -> None:
        """Look at some of the sleeping pools: is it still there, and do inputs wait that rang no bell?"""
        directory = self._replica.directory
        if not self._round:
            self._round.extend(directory.pools)
        for _ in range(min(count, len(self._round))):
            name = self._round.popleft()
            if name not in directory.pools or self._pools.has_loop(name):
                continue
            pool = await directory.read(name)
            if pool and await self._waits(pool):
                self._repaired("unheard", pool=name)
                self._pools.ring(name, demand=True)

    async def _waits(self, pool: Pool) -> bool:
        """Return whether a pool has inputs, without making a consumer for every pool there is."""
        async for _ in self._replica.bus.read(pool.stream, subjects.pool_inputs(pool.prefix)):
            return True
        return False
