"""The workers as this replica knows them: their reports, what was asked of them, who fell silent.

Every replica keeps a fleet, so that a new leader begins warm. All times are the replica's own
monotonic clock: a worker is dead when nothing was heard of it for four seconds here, wherever its own
clock stands.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tidemill._wire.scheduling import Capacity, ContainerState, WorkerState
from tidemill._wire.specs import Pool, Resources
from tidemill_scheduler.decisions import COMING, READY, ContainerView, Phase
from tidemill_scheduler.placing import IdleContainer, WorkerView, without

SILENCE = 4.0  # seconds without a report after which a worker is dead
UNREPORTED = 2.0  # seconds after which an asked-for container that no report shows is given up
UNHANDLED = 10.0  # seconds after a loss in which a leader may have ended before it acted on it
REMEMBERED = 20.0  # seconds in which a lost worker's record in the bucket says nothing new
SHUNNED = 1.0  # seconds for which a worker that refused or was silent comes last


@dataclass(slots=True)
class Container:
    """One container: where it is, what it does, since when (own clock), and when it was asked for."""

    container: str
    pool: str
    worker: str
    phase: Phase
    since: float
    asked: float
    reported_since: float = -1.0
    was_ready: bool = False
    took: float = 0.0  # seconds until it was ready, where it was asked for by this replica
    generation: int = 0
    superseded: bool = False
    stop_asked: float = float("-inf")
    gpus: Mapping[str, int] = field(default_factory=dict)

    def is_stillborn(self) -> bool:
        """Return whether it would have ended before it was ready, by itself, if it were gone now."""
        return self.phase is Phase.STARTING and not self.was_ready and self.stop_asked == float("-inf")

    def view(self, now: float) -> ContainerView:
        """Return it as decisions see it: one that was just told to stop counts as stopping."""
        stopping = now - self.stop_asked < UNREPORTED
        phase = Phase.STOPPING if stopping else self.phase
        return ContainerView(self.container, phase, self.since, self.generation, self.superseded, self.took)

    def is_ready_at(self, now: float) -> None:
        """Note that it is ready, and how long that took."""
        if not self.was_ready:
            self.was_ready, self.took = True, now - self.asked


@dataclass(slots=True)
class Worker:
    """One worker: its last report, when it was heard, and the containers that it has or was asked for."""

    state: WorkerState
    heard: float
    containers: dict[str, Container] = field(default_factory=dict)
    shunned_until: float = float("-inf")
    confirmed: bool = True  # a report came, not only a record of the bucket


@dataclass(frozen=True, slots=True)
class News:
    """What a report changed: pools to look at again, containers that ended before they were ready.

    `room` says that the worker can take more than before; `lost` is an earlier process of this worker.
    """

    pools: frozenset[str]
    stillborn: tuple[Container, ...] = ()
    room: bool = False
    lost: "Lost | None" = None


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that fell silent: the leases and containers it held, when it was found out."""

    worker: str
    leases: tuple[str, ...]
    containers: tuple[Container, ...]
    at: float

    @property
    def pools(self) -> frozenset[str]:
        """The pools that it served."""
        return frozenset(container.pool for container in self.containers)


class Spare(NamedTuple):
    """What a pool could do without: some of its containers, with what each of them holds."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody asks this
    resources: Resources


class Fleet:
    """All live workers and containers."""

    def __init__(self, clock: Callable[[], float], *, silence: float = SILENCE) -> None:
        self._clock = clock
        self._silence = silence
        self._workers: dict[str, Worker] = {}
        self._pools: dict[str, dict[str, Container]] = {}
        self._specs: dict[str, Pool] = {}  # of asked-for containers, for what they will take
        self._lost: list[Lost] = []

    # --- what workers say

    def report(self, state: WorkerState, *, heard: bool = True) -> News:
        """Take in a report; `heard=False` for one read from the bucket, which proves no life now."""
        now = self._clock()
        worker = self._workers.get(state.worker)
        lost = None
        if not heard and (worker or any(lost.worker == state.worker for lost in self._lost)):
            return News(frozenset())
        if worker and worker.state.pid != state.pid:
            lost = self._forget(worker, now)
            worker = None
        room = worker is None or _grew(worker.state, state)
        if worker is None:
            worker = self._workers[state.worker] = Worker(state, now)
        worker.state, worker.heard, worker.confirmed = state, now, heard
        changed = {told.pool for told in state.containers if self._told(worker, told, now)}
        reported = {told.container for told in state.containers}
        gone = [
            known
            for known in worker.containers.values()
            if known.container not in reported and known.phase is not Phase.PLACED
        ]
        for container in gone:
            self._remove(worker, container)
        stillborn = tuple(one for one in gone if one.is_stillborn() and not state.draining)
        changed.update(container.pool for container in gone)
        return News(frozenset(changed), stillborn, room or bool(changed), lost)

    def _told(self, worker: Worker, told: ContainerState, now: float) -> bool:
        """Take in what a worker says of one container; return whether its pool is worth a look."""
        container = worker.containers.get(told.container)
        if container is None:
            container = Container(
                told.container, told.pool, worker.state.worker, Phase.PLACED, now, now,
                generation=told.generation, superseded=told.superseded,
            )  # fmt: skip
            self._add(worker, container)
        container.gpus = told.gpus
        return _update(container, told.state, told.since, now)

    def reap(self) -> list[Lost]:
        """Forget the workers that fell silent and return them."""
        now = self._clock()
        dead = [worker for worker in self._workers.values() if now - worker.heard > self._silence]
        return [self._forget(worker, now) for worker in dead]

    def _forget(self, worker: Worker, now: float) -> Lost:
        containers = tuple(worker.containers.values())
        for container in containers:
            self._remove(worker, container)
        del self._workers[worker.state.worker]
        lost = Lost(worker.state.worker, worker.state.leases, containers, now)
        self._lost = [*(one for one in self._lost if now - one.at < REMEMBERED), lost]
        return lost

    def lately_lost(self) -> list[Lost]:
        """Return the workers lost so lately that the leader of then may not have acted on it."""
        return [one for one in self._lost if self._clock() - one.at < UNHANDLED]

    def forgive(self) -> None:
        """Take every worker as heard just now: it was this replica that could not hear."""
        now = self._clock()
        for worker in self._workers.values():
            worker.heard = now

    # --- what is asked of workers

    def asked(self, container: str, pool: Pool, worker: str) -> None:
        """Note that a worker is being asked for a container: its room is taken from this moment."""
        if owner := self._workers.get(worker):
            now = self._clock()
            self._specs[container] = pool
            placed = Container(
                container, pool.id, worker, Phase.PLACED, now, now,
                generation=pool.generation, superseded=pool.superseded,
            )  # fmt: skip
            self._add(owner, placed)

    def refused(self, container: str, worker: str) -> None:
        """Note that a worker did not take a container; it is asked last for a second."""
        self.forget(container, worker)
        self.shun(worker)

    def started(self, container: str, worker: str) -> None:
        """Note that a container is ready, ahead of the report."""
        if (owner := self._workers.get(worker)) and (known := owner.containers.get(container)):
            known.is_ready_at(self._clock())
            if known.phase in COMING:
                known.phase, known.since = Phase.IDLE, self._clock()

    def forget(self, container: str, worker: str) -> None:
        """Note that a container is no more, ahead of the report."""
        if (owner := self._workers.get(worker)) and (known := owner.containers.get(container)):
            self._remove(owner, known)

    def shun(self, worker: str) -> None:
        """Ask a worker last for a second."""
        if owner := self._workers.get(worker):
            owner.shunned_until = self._clock() + SHUNNED

    def unreported(self) -> list[Container]:
        """Forget and return what was asked for and shown by no report in time."""
        now = self._clock()
        lost = []
        for worker in self._workers.values():
            for container in list(worker.containers.values()):
                if container.phase is Phase.PLACED and now - container.asked > UNREPORTED:
                    self._remove(worker, container)
                    lost.append(container)
        return lost

    def stopping(self, containers: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Note that these containers are told to stop; return them by worker."""
        now = self._clock()
        by_worker: dict[str, tuple[str, ...]] = {}
        for name, worker in self._workers.items():
            if mine := tuple(one for one in containers if one in worker.containers):
                by_worker[name] = mine
                for one in mine:
                    worker.containers[one].stop_asked = now
        return by_worker

    # --- what decisions see

    def containers(self, pool: str) -> tuple[ContainerView, ...]:
        """Return a pool's containers."""
        now = self._clock()
        return tuple(container.view(now) for container in self._pools.get(pool, {}).values())

    def ready(self, pool: str) -> int:
        """Return how many of a pool's containers are ready."""
        return sum(one.phase in READY for one in self._pools.get(pool, {}).values())

    def container(self, pool: str, container: str) -> Container | None:
        """Return one container of a pool."""
        return self._pools.get(pool, {}).get(container)

    def active_pools(self) -> frozenset[str]:
        """Return the pools that have containers."""
        return frozenset(self._pools)

    def states(self) -> tuple[WorkerState, ...]:
        """Return the last report of every live worker."""
        return tuple(worker.state for worker in self._workers.values())

    def all_heard(self) -> bool:
        """Return whether every known worker has reported to this replica itself."""
        return all(worker.confirmed for worker in self._workers.values())

    def views(self, images: Callable[[str], str]) -> list[WorkerView]:
        """Return the workers as placing sees them; `images` gives the image key of a pool."""
        now = self._clock()
        return [self._view(worker, images, now) for worker in self._workers.values()]

    def _view(self, worker: Worker, images: Callable[[str], str], now: float) -> WorkerView:
        state, free = worker.state, worker.state.free
        for container in worker.containers.values():
            if container.phase is Phase.PLACED and (pool := self._specs.get(container.container)):
                free = without(free, pool)
        pools = frozenset(one.pool for one in worker.containers.values() if one.phase in READY)
        return WorkerView(
            worker=state.worker,
            capabilities=frozenset(state.capabilities),
            labels=state.labels,
            total=state.total,
            free=free,
            starting=sum(one.phase in COMING for one in worker.containers.values()),
            pools=pools,
            images=frozenset(images(pool) for pool in pools),
            draining=state.draining,
            shunned=worker.shunned_until > now or not worker.confirmed,
        )

    def idle(self, spare: Mapping[str, Spare]) -> Iterator[IdleContainer]:
        """Yield idle containers of pools that can spare some: `spare` says how many of each."""
        now = self._clock()
        for pool, (count, resources) in spare.items():
            idle = [one for one in self._pools.get(pool, {}).values() if one.view(now).phase is Phase.IDLE]
            for one in sorted(idle, key=lambda container: container.since)[:count]:
                yield IdleContainer(one.container, one.worker, now - one.since, resources, one.gpus)

    def _add(self, worker: Worker, container: Container) -> None:
        worker.containers[container.container] = container
        self._pools.setdefault(container.pool, {})[container.container] = container

    def _remove(self, worker: Worker, container: Container) -> None:
        worker.containers.pop(container.container, None)
        self._specs.pop(container.container, None)
        siblings = self._pools.get(container.pool, {})
        siblings.pop(container.container, None)
        if not siblings:
            self._pools.pop(container.pool, None)


_PHASES = {phase.value: phase for phase in Phase}


def _update(container: Container, state: str, since: float, now: float) -> bool:
    """Bring a container to what its worker says; return whether its pool is worth a look."""
    phase = _PHASES.get(state, Phase.STARTING)
    if phase is Phase.STARTING and container.was_ready:
        return False  # the report was made before the event that is known already
    if phase is container.phase and since == container.reported_since:
        return False
    worth_a_look = phase is not container.phase and not (phase in READY and container.phase in READY)
    container.phase, container.since, container.reported_since = phase, now, since
    if phase in READY:
        container.is_ready_at(now)
    return worth_a_look


def _grew(before: WorkerState, after: WorkerState) -> bool:
    """Return whether a worker can take something now that it could not before."""
    return (
        after.free.cpu > before.free.cpu
        or after.free.memory > before.free.memory
        or _more_gpus(before.free, after.free)
        or (before.capabilities, before.labels, before.total)
        != (after.capabilities, after.labels, after.total)
        or (before.draining and not after.draining)
    )


def _more_gpus(before: Capacity, after: Capacity) -> bool:
    return any(count > before.gpus.get(kind, 0) for kind, count in after.gpus.items())
