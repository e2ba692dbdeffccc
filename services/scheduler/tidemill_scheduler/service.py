"""The scheduler: what it hears, and the loops that every replica runs.

tm.demand.*.*          bells of callers           -> the leader's pools
tm.worker_states.*     reports of workers         -> the fleet (every replica), the leader's pools
tm.events.*.container.*  lives of containers        -> the leader's pools
pools bucket           what can be called         -> the directory (every replica)
tm.due.>               delayed attempts, due      -> the inputs of their pools (every replica)
tm.scheduler.*.<verb>  requests of callers        (every replica; about single containers: the leader)
tm.internal.scheduler  requests of gateways       -> the leader's token buckets
"""

import asyncio
import os
import socket
import time
from functools import partial
from importlib.metadata import version

import msgspec

from tidemill._bus.protocol import Message
from tidemill._wire import ids, subjects
from tidemill._wire.autoscaling import GetPoolStats
from tidemill._wire.containers import Execute, ListContainers, StopContainer
from tidemill._wire.control import CancelCall, FindQueued
from tidemill._wire.limits import LeaseTokens
from tidemill._wire.scheduling import (
    ContainerEvent,
    CountReady,
    GetSchedulerStatus,
    ListWorkers,
    MakeReady,
    WorkerState,
)
from tidemill_common.bus.protocol import Endpoint
from tidemill_common.lease import Lease
from tidemill_common.records import Recorder
from tidemill_common.requests import Endpoints
from tidemill_common.service import Context
from tidemill_scheduler.cancelling import Cancelling
from tidemill_scheduler.containers import Containers
from tidemill_scheduler.leader import Leader
from tidemill_scheduler.metrics import Metrics
from tidemill_scheduler.placements import Placer
from tidemill_scheduler.pools import Directory
from tidemill_scheduler.questions import Questions
from tidemill_scheduler.records import Records
from tidemill_scheduler.replica import Replica
from tidemill_scheduler.settings import Settings
from tidemill_scheduler.timers import DueMover
from tidemill_scheduler.warming import Warming
from tidemill_scheduler.workers import SILENCE, Fleet

LEASE = "scheduler"
REAP_EVERY = 0.25  # seconds between looks for workers that fell silent
LATE = 1.0  # seconds by which such a look may be late before silence is this process's own fault


class Scheduler:
    """One replica of the scheduler."""

    name = "scheduler"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.replica: Replica | None = None
        self._leader: Leader | None = None
        self._due: DueMover | None = None
        self._recorder: Recorder | None = None
        self._leading: asyncio.Task[None] | None = None
        self._deaf = False  # without a connection, nobody's silence says anything
        self._reports = msgspec.msgpack.Decoder(WorkerState)
        self._events = msgspec.msgpack.Decoder(ContainerEvent)

    async def start(self, context: Context) -> None:
        """Begin to listen, to move what is due and to stand for leadership."""
        self._recorder = Recorder(context.bus, ids.new("re"), context.log, context.metrics)
        self.replica = replica = _replica(context, self._recorder, self.settings.max_queued)
        bus, tasks = context.bus, context.tasks
        bus.on_disconnect(self._on_disconnect)
        bus.on_reconnect(self._on_reconnect)
        await bus.subscribe(subjects.ALL_WORKER_STATES, self._on_report)
        await bus.subscribe(subjects.ALL_CONTAINER_EVENTS, self._on_event)
        await bus.subscribe(subjects.ALL_DEMAND, self._on_demand)
        tasks.create_task(replica.directory.watch(), name="pools")
        tasks.create_task(self._reap(replica), name="silent workers")
        endpoints = Endpoints(context.log, context.metrics)
        lease = Lease(bus, LEASE, replica.id)
        self._leading = tasks.create_task(
            lease.run(partial(self._lead, replica, endpoints)), name="leadership"
        )
        self._due = DueMover(replica, tasks)
        await self._due.start()
        questions = Questions(replica)
        table = {
            "cancel": endpoints.endpoint("cancel", CancelCall, Cancelling(replica).cancel),
            "find_queued": endpoints.endpoint("find_queued", FindQueued, questions.find_queued),
            "pool_stats": endpoints.endpoint("pool_stats", GetPoolStats, questions.pool_stats),
            "list_workers": endpoints.endpoint("list_workers", ListWorkers, questions.list_workers),
        }
        served = {subjects.scheduler(subjects.EVERY, verb): endpoint for verb, endpoint in table.items()}
        await bus.serve("scheduler", version("tidemill"), served)

    async def drain(self) -> None:
        """Pull nothing more and let somebody else lead."""
        if self._due:
            await self._due.stop()
        if self._leading:
            self._leading.cancel()
            await asyncio.wait({self._leading})
        if self._recorder:
            await self._recorder.close()

    @property
    def term(self) -> int:
        """The term that this replica leads under, 0 while it follows."""
        return self._leader.term if self._leader else 0

    async def ready(self) -> str | None:
        """Return why this replica cannot do its work, or None; a follower is ready too."""
        if self.replica is None or not self.replica.directory.filled.is_set():
            return "the pools are not read yet"
        return None

    # --- what is heard

    def _on_disconnect(self) -> None:
        self._deaf = True

    def _on_reconnect(self) -> None:
        self._deaf = False
        if self.replica:
            self.replica.fleet.forgive()

    def _on_demand(self, message: Message) -> None:
        if self._leader is None:
            return
        try:
            workspace, pool = subjects.demanded(message.subject)
        except ValueError:  # any caller can ring, for anything
            return
        self._leader.demanded(workspace, pool)

    def _on_report(self, message: Message) -> None:
        if (replica := self.replica) is None:
            return
        try:
            state = self._reports.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            replica.log.error("a worker's report cannot be read", subject=message.subject, error=str(error))
            return
        news = replica.fleet.report(state)
        if self._leader:
            self._leader.on_news(news)

    def _on_event(self, message: Message) -> None:
        if self._leader is None or self.replica is None:
            return
        try:
            event = self._events.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.replica.log.error(
                "a container's event cannot be read", subject=message.subject, error=str(error)
            )
            return
        self._leader.on_event(event)

    # --- the loops of every replica

    async def _lead(self, replica: Replica, endpoints: Endpoints, term: int) -> None:
        """Lead until cancelled."""
        async with Leader(replica, term) as leader:
            self._leader = leader
            try:
                leader.serve(_leader_requests(replica, leader, endpoints))
                await leader.lead()
            finally:
                self._leader = None

    async def _reap(self, replica: Replica) -> None:
        """Find out who fell silent. A loop that was late itself has heard nothing, and accuses nobody."""
        while True:
            due = replica.clock() + REAP_EVERY
            await asyncio.sleep(REAP_EVERY)
            if replica.clock() - due > LATE:
                replica.fleet.forgive()
            for lost in () if self._deaf else replica.fleet.reap():
                if self._leader:
                    self._leader.on_lost(lost)


def _leader_requests(replica: Replica, leader: Leader, endpoints: Endpoints) -> dict[str, Endpoint]:
    """Return what only the leader answers, by subject."""
    containers = Containers(replica, Placer(replica, leader.term))
    made = endpoints.endpoint
    table = {
        "status": made("status", GetSchedulerStatus, leader.status),
        "list_containers": made("list_containers", ListContainers, containers.list),
        "stop_container": made("stop_container", StopContainer, containers.stop),
        "execute": made("execute", Execute, containers.execute),
    }
    lease_tokens = endpoints.internal("lease_tokens", LeaseTokens, leader.tokens.lease)
    warming = Warming(replica.fleet, leader.find)
    return {
        **{subjects.scheduler(subjects.EVERY, verb): endpoint for verb, endpoint in table.items()},
        subjects.internal("scheduler", "lease_tokens"): lease_tokens,
        subjects.internal("scheduler", "count_ready"): endpoints.internal(
            "count_ready", CountReady, warming.count
        ),
        subjects.internal("scheduler", "make_ready"): endpoints.internal(
            "make_ready", MakeReady, warming.make
        ),
    }


def _replica(context: Context, recorder: Recorder, max_queued: int) -> Replica:
    name = f"{socket.gethostname()}-{os.getpid()}-{ids.new('re')[-6:]}"
    directory = Directory(context.bus, context.log)
    return Replica(
        name,
        context.bus,
        Fleet(time.monotonic, silence=SILENCE),
        directory,
        context.log,
        Metrics(context.metrics),
        Records(recorder, directory),
        max_queued,
    )
