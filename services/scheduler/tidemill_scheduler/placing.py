"""Where containers go: which worker fits, which is best, what may make room, and why none fits.

Pure, like `decisions`. A worker *fits* when it could ever run the pool (capability, labels, size), and
*has room* when it can now. The best one has the most wanted GPU, runs this pool or its image already,
and is the least loaded.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import Pool, Resources

STARTS_PER_CORE = 4  # containers that a worker starts at the same time, for each of its cores
RECLAIM_AFTER = 0.1  # seconds a container must have idled before another pool may have its place


ANY = "*"  # a worker with this value of a label is at every place that a function may ask for


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One live worker; `free` has what was asked of it and not reported yet taken off.

    `shunned` is one that refused or did not answer just now: it comes last.
    """

    worker: str
    capabilities: frozenset[str]
    labels: dict[str, str]
    total: Capacity
    free: Capacity
    starting: int = 0
    pools: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    draining: bool = False
    shunned: bool = False


@dataclass(frozen=True, slots=True)
class IdleContainer:
    """A container that another pool could do without: what it holds, and for how long it idled."""

    container: str
    worker: str
    idle: float
    resources: Resources


class Assignment(NamedTuple):
    """One container to ask a worker for."""

    worker: str
    overcommit: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The assignments that can be made now, and how many containers have no room anywhere."""

    assignments: tuple[Assignment, ...] = ()
    without_room: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be placed: containers of one pool, `image` being the key of its image."""

    pool: Pool
    image: str
    count: int
    first: bool  # the pool has no container yet: the cores may be overcommitted for one
    excluded: frozenset[str] = field(default_factory=frozenset)


def gpu_types(pool: Pool) -> tuple[tuple[str, int], ...]:
    """Return the alternatives (type, count) of a pool, most wanted first; none for a CPU pool."""
    if pool.spec.resources.gpus:
        return pool.spec.resources.gpus
    if pool.capability == "cpu":
        return ()
    return tuple((part.removeprefix("gpu-"), 1) for part in pool.capability.split("+"))


def choose(order: Order, workers: Iterable[WorkerView]) -> Choice:
    """Return workers for as many containers of an order as may start now."""
    fitting = [
        view
        for view in workers
        if view.worker not in order.excluded and not view.draining and not unfit(order.pool, view)
    ]
    heap = [(rank, view.worker, view) for view in fitting if (rank := _rank(order, view, cores=True))]
    heapq.heapify(heap)
    chosen: list[Assignment] = []
    later = False  # there is room, behind containers that are starting
    while heap and len(chosen) < order.count:
        _, name, view = heapq.heappop(heap)
        if view.starting >= _starts_at_once(view):
            later = True
            continue
        chosen.append(Assignment(name, overcommit=False))
        view = _taken(order.pool, view)
        if rank := _rank(order, view, cores=True):
            heapq.heappush(heap, (rank, name, view))
    if not chosen and not later and order.first and order.count:
        chosen = _overcommitted(order, fitting)
    return Choice(tuple(chosen), 0 if later else order.count - len(chosen))


def _overcommitted(order: Order, fitting: Sequence[WorkerView]) -> list[Assignment]:
    ranked = [(rank, view.worker) for view in fitting if (rank := _rank(order, view, cores=False))]
    return [Assignment(min(ranked)[1], overcommit=True)] if ranked else []


def _starts_at_once(view: WorkerView) -> int:
    return max(STARTS_PER_CORE, int(STARTS_PER_CORE * view.total.cpu))


def _rank(order: Order, view: WorkerView, *, cores: bool) -> tuple[float, ...] | None:
    """Return how good a worker is (less is better), or None when it has no room now."""
    resources = order.pool.spec.resources
    if view.free.memory < resources.memory or (cores and view.free.cpu + 1e-9 < resources.cpu):
        return None
    gpu = _alternative(order.pool, view.free)
    if gpu is None:
        return None
    load = 1.0 - view.free.cpu / max(view.total.cpu, 1e-9)
    warmth = 0 if order.pool.id in view.pools else 1 if order.image in view.images else 2
    wasted = bool(view.total.gpus) and not resources.gpus  # keep GPU workers for those who need them
    return (view.shunned, gpu[0], wasted, warmth, load)


def _alternative(pool: Pool, capacity: Capacity) -> tuple[int, str, int] | None:
    """Return (place in the order of preference, type, count) of the GPUs that a capacity offers."""
    alternatives = gpu_types(pool)
    for place, (wanted, count) in enumerate(alternatives):
        for kind in sorted(capacity.gpus) if wanted.lower() == "any" else (wanted,):
            if capacity.gpus.get(kind, 0) >= count:
                return place, kind, count
    return None if alternatives else (0, "", 0)


def _taken(pool: Pool, view: WorkerView) -> WorkerView:
    return replace(view, free=without(view.free, pool), starting=view.starting + 1)


def without(free: Capacity, pool: Pool) -> Capacity:
    """Return a capacity less what one container of a pool takes."""
    resources = pool.spec.resources
    gpus = free.gpus
    if taken := _alternative(pool, free):
        _, kind, count = taken
        gpus = {**gpus, kind: gpus[kind] - count} if kind else gpus
    return Capacity(free.cpu - resources.cpu, free.memory - resources.memory, gpus)


def unfit(pool: Pool, view: WorkerView) -> str:
    """Return why a worker can never run a pool, or an empty string if it can."""
    resources = pool.spec.resources
    if "cpu" not in view.capabilities and pool.capability == "cpu":
        return "runs no CPU functions"
    if _alternative(pool, view.total) is None:
        return "has no such GPUs"
    for label, values in pool.spec.labels.items():
        if view.labels.get(label) not in (*values, ANY):
            return f"its {label} is {view.labels.get(label, 'not set')}"
    if view.total.cpu + 1e-9 < resources.cpu:
        return f"has {view.total.cpu:g} cores"
    if view.total.memory < resources.memory:
        return f"has {view.total.memory} MiB of memory"
    return ""


def explain(pool: Pool, workers: Sequence[WorkerView]) -> tuple[str, str]:
    """Return (message, hint) about a pool that no live worker can ever run."""
    live = [view for view in workers if not view.draining]
    if not live:
        return "no worker is connected", "start one, or wait for one that is starting"
    wanted = " or ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in gpu_types(pool))
    if wanted and all(_alternative(pool, view.total) is None for view in live):
        there = sorted({kind for view in live for kind in view.total.gpus})
        return f"no worker has a GPU of type {wanted}; there are: {', '.join(there) or 'none'}", ""
    reasons = ", ".join(f"{view.worker} {unfit(pool, view)}" for view in live[:5])
    return f"no worker fits {_wishes(pool)}: {reasons}", "lower what the function asks for, or add a worker"


def _wishes(pool: Pool) -> str:
    resources = pool.spec.resources
    labels = [f"{label} {' or '.join(values)}" for label, values in pool.spec.labels.items()]
    return ", ".join([f"{resources.cpu:g} cores", f"{resources.memory} MiB", *labels])


def reclaim(
    pool: Pool, short: int, workers: Iterable[WorkerView], idle: Iterable[IdleContainer]
) -> list[str]:
    """Return idle containers of other pools, longest idle first, that are to make room for a pool.

    Only those count that hold what the pool needs, on workers that can run it.
    """
    fitting = {view.worker for view in workers if not view.draining and not unfit(pool, view)}
    needs_gpu = bool(gpu_types(pool))
    useful = [
        container
        for container in idle
        if container.worker in fitting
        and container.idle >= RECLAIM_AFTER
        and (container.resources.gpus or not needs_gpu)
    ]
    useful.sort(key=lambda container: -container.idle)
    return [container.container for container in useful[: _enough(pool, short, useful)]]


def _enough(pool: Pool, short: int, useful: Sequence[IdleContainer]) -> int:
    """Return how many of these containers hold the cores and memory of `short` containers of a pool."""
    cpu = memory = 0.0
    for number, container in enumerate(useful):
        if cpu >= short * pool.spec.resources.cpu and memory >= short * pool.spec.resources.memory:
            return number
        cpu += container.resources.cpu
        memory += container.resources.memory
    return len(useful)
