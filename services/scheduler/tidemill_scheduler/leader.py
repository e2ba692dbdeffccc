"""What only the leader does, for one term: pools scaled, lost workers' leases handed back, repairs.

Everything here can be lost at any moment: it is made again from the buckets, the consumers and the
workers' reports by whoever leads next.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from types import TracebackType
from typing import Self

from tidemill._bus.protocol import BusError, Disconnected
from tidemill._wire import coding, failure, subjects
from tidemill._wire.control import Trouble
from tidemill._wire.messages import Status
from tidemill._wire.scheduling import ContainerEvent, GetSchedulerStatus, SchedulerStatus, WorkerState
from tidemill._wire.specs import Pool
from tidemill_common import streams
from tidemill_common.bus.protocol import Endpoint
from tidemill_scheduler import endings, queues
from tidemill_scheduler.placements import Placer
from tidemill_scheduler.pools import Outline, ignore
from tidemill_scheduler.questions import shown
from tidemill_scheduler.queues import Backlog
from tidemill_scheduler.reconciling import Reconciler
from tidemill_scheduler.replica import Replica
from tidemill_scheduler.scaling import Scaler
from tidemill_scheduler.token_leases import TokenLeases
from tidemill_scheduler.workers import Container, Lost, News, Spare

SETTLE = 1.2  # seconds after which every live worker has reported to a replica that just came up
UNKNOWN_AT_ONCE = 100  # pools looked for side by side that one workspace rang for
REPURGE = (0.0, 5.0, 60.0)  # seconds after a pool's end at which its inputs are ended: callers lag behind
RETRY = 1.0

NAK = b"-NAK"


class Leader:
    """One term of leadership. `term` is the fencing number in every order."""

    def __init__(self, replica: Replica, term: int) -> None:
        self.term = term
        self._replica = replica
        self._placer = Placer(replica, term)
        self._scalers: dict[str, Scaler] = {}
        self._unknown: dict[str, set[str]] = {}  # pools that are looked for, by the workspace that asked
        self._heard = asyncio.Event()  # every worker that may be alive
        self._settled = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self.tokens = TokenLeases(replica.bus, replica.log)

    async def __aenter__(self) -> Self:
        """Begin the term: bells may ring from now on."""
        await self._tasks.__aenter__()
        self._tasks.create_task(self.tokens.run(), name="token buckets")
        replica = self._replica
        replica.directory.on_change, replica.directory.on_gone = self._on_pool, self._on_pool_gone
        replica.metrics.leading.set(1)
        replica.log.info("leading", term=self.term)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the term and all its loops."""
        replica = self._replica
        replica.directory.on_change, replica.directory.on_gone = ignore, ignore
        replica.metrics.leading.set(0)
        replica.log.info("no longer leading", term=self.term)
        await self._tasks.__aexit__(kind, error, trace)

    async def lead(self) -> None:
        """Look after everything until cancelled."""
        await self._settle()
        self._begin()
        await Reconciler(self._replica, self._placer, self).run()

    def serve(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Answer requests that only the leader can, as long as the term lasts."""
        self._tasks.create_task(self._serve(endpoints), name="requests")

    async def _serve(self, endpoints: Mapping[str, Endpoint]) -> None:
        while True:
            try:
                stop = await self._replica.bus.serve("scheduler-leader", version("tidemill"), endpoints)
                break
            except BusError as error:
                self._replica.log.warning("the leader's requests cannot be served", error=str(error))
                await asyncio.sleep(RETRY)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            with suppress(BusError):
                await stop()

    async def _settle(self) -> None:
        """Wait until every worker that may be alive has been heard: nothing is to be started twice.

        On a fresh stack there is none to wait for. A follower that listened for a while waits neither.
        """
        await self._read_workers()
        if not self._replica.fleet.all_heard():
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE):
                    await self._heard.wait()
        self._settled.set()

    async def _read_workers(self) -> None:
        """Learn of workers that lived until lately: the silent ones hold leases nobody else knows of."""
        try:
            records = await self._replica.bus.bucket(streams.WORKERS).items()
        except BusError as error:
            self._replica.log.warning("the workers bucket cannot be read", error=str(error))
            return
        for record in records.values():
            try:
                self._replica.fleet.report(coding.decode(WorkerState, record), heard=False)
            except ValueError as error:
                self._replica.log.error("a worker's record cannot be read", error=str(error))

    def _begin(self) -> None:
        fleet, directory = self._replica.fleet, self._replica.directory
        for lost in fleet.lately_lost():
            self.on_lost(lost)
        for pool in fleet.active_pools():
            self.ring(pool)
        for pool in directory.wanting:
            self.ring(pool)
        self._tasks.create_task(queues.watch(self._replica, self._backlogs), name="full queues")

    def _backlogs(self) -> Iterator[Backlog]:
        return (scaler.backlog for scaler in self._scalers.values())

    # --- bells

    def demanded(self, workspace: str, pool: str) -> None:
        """Wake a pool that a caller has rung for, if it is one of the caller's workspace."""
        known = self._replica.directory.pools.get(pool)
        if known is not None and known.workspace == workspace:
            self.ring(pool, demand=True)
        else:
            self._look_for(workspace, pool, demand=True)

    def ring(self, pool: str, *, demand: bool = False, room: bool = False) -> None:
        """Wake a pool's loop, made if it has none."""
        if scaler := self._scalers.get(pool):
            scaler.ring(demand=demand, room=room)
        elif known := self._replica.directory.get(pool):
            self._scaler(known).ring(demand=demand)
        elif outline := self._replica.directory.pools.get(pool):
            self._look_for(outline.workspace, pool, demand=demand)

    def _scaler(self, pool: Pool) -> Scaler:
        scaler = self._scalers[pool.id] = Scaler(self._replica, self._placer, self, pool)
        scaler.task = self._tasks.create_task(self._scale(scaler), name=f"pool {pool.id}")
        return scaler

    async def find(self, pool: str) -> Scaler | None:
        """Return a pool's loop, made if it has none; None where there is no such pool."""
        known = self._replica.directory.get(pool) or await self._replica.directory.find(pool)
        return None if known is None else self._scalers.get(pool) or self._scaler(known)

    async def _scale(self, scaler: Scaler) -> None:
        await self._settled.wait()
        await scaler.run()

    def _look_for(self, workspace: str, pool: str, *, demand: bool) -> None:
        wanted = self._unknown.setdefault(workspace, set())
        if pool not in wanted and len(wanted) < UNKNOWN_AT_ONCE:
            wanted.add(pool)
            self._tasks.create_task(self._find(workspace, pool, demand=demand), name=f"find {pool}")

    async def _find(self, workspace: str, pool: str, *, demand: bool) -> None:
        """Look for a pool whose record is not at hand; tell its callers if there is none."""
        try:
            found = await self._replica.directory.find(pool)
            if found is not None and found.workspace == workspace:
                if pool not in self._scalers:
                    self._scaler(found)
                self.ring(pool, demand=demand)
            elif demand:
                self._tell_gone(workspace, pool)
        except BusError as error:
            self._replica.log.warning("a pool cannot be looked up", pool=pool, error=str(error))
        finally:
            wanted = self._unknown[workspace]
            wanted.discard(pool)
            if not wanted:
                del self._unknown[workspace]

    def _tell_gone(self, workspace: str, pool: str) -> None:
        gone = self._replica.directory.gone.get(pool)
        if gone and gone.workspace != workspace:
            gone = None
        message = f"the app {gone.app_name} has stopped" if gone else "the function is not known"
        encoded = failure.from_text("NotFoundError", message)
        trouble = Trouble(pool, message, final=gone is not None, failure=encoded)
        self._replica.bus.publish(subjects.trouble(workspace, pool), coding.encode(trouble))
        if gone:
            self._tasks.create_task(self._end_inputs(gone), name=f"end {pool}")

    def on_news(self, news: News) -> None:
        """Act on what a worker's report changed."""
        if not self._settled.is_set() and self._replica.fleet.all_heard():
            self._heard.set()
        for container in news.stillborn:
            if scaler := self._scalers.get(container.pool):
                scaler.ended_early(container)
        for pool in news.pools:
            self.ring(pool, room=news.room)
        if news.room:
            self._ring_for_room()
        if news.lost:
            self.on_lost(news.lost)

    def _ring_for_room(self) -> None:
        for scaler in self._scalers.values():
            if scaler.wants_room:
                scaler.ring(room=True)

    def on_event(self, event: ContainerEvent) -> None:
        """Hand a container's event to its pool."""
        if scaler := self._scalers.get(event.pool):
            scaler.on_event(event)
        if event.state == "started":  # its worker can start another
            self._ring_for_room()

    def on_lost(self, lost: Lost) -> None:
        """Hand back what a silent worker held, so that nobody waits for its leases to run out."""
        with suppress(Disconnected):  # then they run out by themselves
            for lease in lost.leases:
                self._replica.bus.publish(lease, NAK)
        self._replica.metrics.repairs.labels("lost_worker").inc()
        self._replica.log.warning("worker lost", worker=lost.worker, leases=len(lost.leases))
        for container in lost.containers:
            if pool := self._replica.directory.pools.get(container.pool):
                self._tasks.create_task(self._tell_end(pool, container), name=f"end {container.container}")
        for pool_id in lost.pools:
            self.ring(pool_id)

    async def _tell_end(self, pool: Outline, container: Container) -> None:
        """Tell the end of a container whose worker cannot: callers wait for it, to hear all output.

        The worker's own word for it, should it come after all, has the same id and is dropped.
        """
        event = ContainerEvent(
            container.container, pool.id, pool.name, container.worker, "stopped", time.time(), "was lost"
        )
        try:
            await self._replica.bus.store(
                subjects.event(pool.workspace, "container", pool.app_id),
                coding.encode(event),
                msg_id=f"{container.container}.stopped",
            )
        except BusError as error:
            self._replica.log.warning("an event is not stored", container=event.container, error=str(error))

    # --- pools come and go

    def _on_pool(self, outline: Outline) -> None:
        if scaler := self._scalers.get(outline.id):
            if pool := self._replica.directory.get(outline.id):
                scaler.update(pool)
        elif outline.minimum:
            self.ring(outline.id)

    def _on_pool_gone(self, pool: Outline) -> None:
        scaler = self._scalers.pop(pool.id, None)
        if scaler and scaler.task:
            scaler.task.cancel()
        self._tasks.create_task(self._retire(pool), name=f"retire {pool.id}")

    async def _retire(self, pool: Outline) -> None:
        """Stop a pool's containers everywhere and end its inputs, also those that come late.

        Its consumer goes too, so that stopped apps leave nothing to the server.
        """
        await self._settled.wait()
        containers = tuple(view.container for view in self._replica.fleet.containers(pool.id))
        if containers:
            await self._placer.stop(containers, "gone", graceful=False)
        for pause in REPURGE:
            await asyncio.sleep(pause)
            if pool.id in self._replica.directory.pools:
                return
            await self._end_inputs(pool)
            if pause:  # its containers have ended by then, and nobody makes it again
                await self._end_consumer(pool)

    async def _end_consumer(self, pool: Outline) -> None:
        with suppress(BusError):  # then it ends by not being used
            await self._replica.bus.delete_consumer(pool.stream, pool.id)

    async def _end_inputs(self, pool: Outline) -> None:
        """End what waits in a pool that is gone."""
        try:
            data = failure.from_text("NotFoundError", f"the app {pool.app_name} has stopped")
            count = await endings.end_pool(self._replica, pool, endings.Ending(Status.CANCELLED, data))
        except BusError as error:
            self._replica.log.warning("a stopped pool's inputs stay", pool=pool.id, error=str(error))
        else:
            self._replica.log.info("pool ended", pool=pool.id, messages=count)

    # --- what loops may ask

    def spare(self, pool: str) -> dict[str, Spare]:
        """Return what each other pool could do without."""
        spare = {name: scaler.spare for name, scaler in self._scalers.items() if name != pool}
        return {name: some for name, some in spare.items() if some.count}

    def ended(self, scaler: Scaler) -> None:
        """Forget a loop that has ended."""
        if self._scalers.get(scaler.pool.id) is scaler:
            del self._scalers[scaler.pool.id]

    def has_loop(self, pool: str) -> bool:
        """Return whether a pool is looked after."""
        return pool in self._scalers

    async def status(self, workspace: str, _request: GetSchedulerStatus) -> SchedulerStatus:
        """Answer `tm.scheduler.<ws>.status`."""
        mine = (scaler for scaler in self._scalers.values() if scaler.pool.workspace == workspace)
        return SchedulerStatus(
            self._replica.id,
            self.term,
            tuple(scaler.status() for scaler in mine),
            tuple(shown(self._replica, workspace, state) for state in self._replica.fleet.states()),
        )
