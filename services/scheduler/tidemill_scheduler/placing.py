"""Where containers go: which worker fits, which is best, what may make room, and why none fits.

Pure, like `decisions`. A worker *fits* when it could ever run the pool (capability, labels, size), and
*has room* when it can now. The best one has the most wanted GPU, runs this pool or its image already,
and is the least loaded.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tidemill._wire import gpus
from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import Pool, Resources

STARTS_PER_CORE = 4  # containers that a worker starts at the same time, for each of its cores
RECLAIM_AFTER = 0.1  # seconds a container must have idled before another pool may have its place


_NO_GPU = "start a worker that has one, or ask for another type"
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
    gpus: Mapping[str, int] = field(default_factory=dict)


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


def choose(order: Order, workers: Iterable[WorkerView]) -> Choice:
    """Return workers for as many containers of an order as may start now."""
    fitting = [
        view
        for view in workers
        if view.worker not in order.excluded and not view.draining and not unfit(order.pool, view)
    ]
    fitting = [view for view in fitting if _python(order.pool) in view.labels] or fitting
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


def _python(pool: Pool) -> str:
    """Return the label of workers that have the Python of a pool's image; empty if any will do.

    Where none has it, the one that is asked for the image says so, and which ones there are.
    """
    layers = pool.spec.image.layers
    base = layers[0][1] if layers else {}
    version = base.get("python_version") or base.get("add_python")
    return f"python-{'.'.join(version.split('.')[:2])}" if version else ""


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
    wanted = gpus.alternatives(order.pool)
    offer = gpus.choose(wanted, view.free.gpus)
    if wanted and offer is None:
        return None
    load = 1.0 - view.free.cpu / max(view.total.cpu, 1e-9)
    warmth = 0 if order.pool.id in view.pools else 1 if order.image in view.images else 2
    wasted = bool(view.total.gpus) and not resources.gpus  # keep GPU workers for those who need them
    return (view.shunned, *(offer.rank if offer else (0, 0)), wasted, warmth, load)


def _taken(pool: Pool, view: WorkerView) -> WorkerView:
    return replace(view, free=without(view.free, pool), starting=view.starting + 1)


def without(free: Capacity, pool: Pool) -> Capacity:
    """Return a capacity less what one container of a pool takes."""
    resources, left = pool.spec.resources, free.gpus
    if offer := gpus.choose(gpus.alternatives(pool), left):
        left = {**left, offer.kind: left[offer.kind] - offer.count}
    return Capacity(free.cpu - resources.cpu, free.memory - resources.memory, left)


def unfit(pool: Pool, view: WorkerView) -> str:
    """Return why a worker can never run a pool, or an empty string if it can."""
    resources = pool.spec.resources
    if "cpu" not in view.capabilities and pool.capability == "cpu":
        return "runs no CPU functions"
    if _lacks_gpus(pool, view.total):
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
    if all(_lacks_gpus(pool, view.total) for view in live):
        wanted = gpus.in_words(gpus.alternatives(pool))
        return f"no worker has a GPU of type {wanted}; there are: {_gpus_of(live)}", _NO_GPU
    reasons = ", ".join(f"{view.worker} {unfit(pool, view)}" for view in live[:5])
    return f"no worker fits {_wishes(pool)}: {reasons}", "lower what the function asks for, or add a worker"


def _wishes(pool: Pool) -> str:
    resources, wanted = pool.spec.resources, gpus.in_words(gpus.alternatives(pool))
    labels = [f"{label} {' or '.join(values)}" for label, values in pool.spec.labels.items()]
    parts = [f"{resources.cpu:g} cores", f"{resources.memory} MiB", *([wanted] if wanted else []), *labels]
    return ", ".join(parts)


def _lacks_gpus(pool: Pool, total: Capacity) -> bool:
    """Return whether GPUs are asked for that a worker has not even when nobody uses them."""
    wanted = gpus.alternatives(pool)
    return bool(wanted) and gpus.choose(wanted, total.gpus) is None


def _gpus_of(views: Iterable[WorkerView]) -> str:
    """Return what GPUs there are, by type: the most that one worker has of each."""
    most: dict[str, int] = {}
    for view in views:
        for kind, count in view.total.gpus.items():
            most[kind] = max(count, most.get(kind, 0))
    return ", ".join(gpus.in_words([one]) for one in sorted(most.items()) if one[1]) or "none"


def reclaim(
    pool: Pool, short: int, workers: Iterable[WorkerView], idle: Iterable[IdleContainer]
) -> list[str]:
    """Return idle containers of other pools, longest idle first, that are to make room for a pool.

    Only those count that hold what the pool needs, on workers that can run it.
    """
    fitting = {view.worker for view in workers if not view.draining and not unfit(pool, view)}
    wanted = gpus.alternatives(pool)
    useful = [
        container
        for container in idle
        if container.worker in fitting
        and container.idle >= RECLAIM_AFTER
        and (not wanted or _has_one_of(wanted, container))
    ]
    useful.sort(key=lambda container: -container.idle)
    return [container.container for container in useful[: _enough(pool, short, useful)]]


def _has_one_of(wanted: Sequence[gpus.Wanted], container: IdleContainer) -> bool:
    """Return whether a container has a GPU of a type that is asked for."""
    return gpus.choose([(kind, 1) for kind, _ in wanted], container.gpus) is not None


def _enough(pool: Pool, short: int, useful: Sequence[IdleContainer]) -> int:
    """Return how many of these containers hold the cores, memory and GPUs of `short` containers of a pool."""
    cpu = memory = devices = 0.0
    each = min((count for _, count in gpus.alternatives(pool)), default=0)
    resources = pool.spec.resources
    for number, container in enumerate(useful):
        if min(cpu - short * resources.cpu, memory - short * resources.memory, devices - short * each) >= 0:
            return number
        cpu += container.resources.cpu
        memory += container.resources.memory
        devices += sum(container.gpus.values())
    return len(useful)
