"""What this machine has and what of it is promised to containers."""

import os
from dataclasses import dataclass, field, replace

from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import Pool
from tidemill_worker import decisions
from tidemill_worker.settings import Settings

MEMORY_SHARE = 0.95  # of the machine's memory that containers may take in all


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one container holds; `devices` are the numbers of its GPUs."""

    pool: Pool
    grant: decisions.Grant
    devices: tuple[int, ...]


@dataclass(slots=True)
class Room:
    """The machine's capacity, what is left of it, and who has the rest."""

    total: Capacity
    free: Capacity = field(init=False)
    _devices: dict[str, list[int]] = field(init=False)
    _held: dict[str, Reservation] = field(init=False, default_factory=dict)
    _lent: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.free = self.total
        self._devices = {}
        first = 0
        for kind, count in self.total.gpus.items():
            self._devices[kind] = list(range(first, first + count))
            first += count

    def reserve(self, container: str, pool: Pool, *, overcommit: bool) -> Reservation | str:
        """Take what a container of a pool needs, or return why that cannot be."""
        grant = decisions.fit(pool, self.free, self.total, overcommit=overcommit)
        if isinstance(grant, str):
            return grant
        devices = tuple(self._devices[grant.gpu].pop(0) for _ in range(grant.count))
        self.free = decisions.after(self.free, pool.spec.resources, grant)
        self._held[container] = reservation = Reservation(pool, grant, devices)
        return reservation

    def release(self, container: str) -> None:
        """Give back what a container held."""
        self.lend(self._lent - {container})
        reservation = self._held.pop(container, None)
        if reservation is None:
            return
        resources, grant = reservation.pool.spec.resources, reservation.grant
        gpus = dict(self.free.gpus)
        if grant.gpu:
            gpus[grant.gpu] += grant.count
            self._devices[grant.gpu] = sorted((*self._devices[grant.gpu], *reservation.devices))
        self.free = Capacity(self.free.cpu + resources.cpu, self.free.memory + resources.memory, gpus)

    def lend(self, containers: set[str]) -> bool:
        """Let others use the cores of exactly these containers; return whether that changes anything.

        Cores that are taken back may be in use: fewer than none are free then, until somebody ends.
        """
        lent = containers & self._held.keys()
        if lent == self._lent:
            return False
        more = sum(self._cores_of(one) for one in lent - self._lent)
        less = sum(self._cores_of(one) for one in self._lent - lent)
        self.free = replace(self.free, cpu=self.free.cpu + more - less)
        self._lent = lent
        return True

    def _cores_of(self, container: str) -> float:
        return self._held[container].pool.spec.resources.cpu


def machine(settings: Settings) -> Capacity:
    """Return what containers may take in all: as declared, else what this machine has."""
    cpu = settings.worker_cpu or float(_cores())
    memory = settings.worker_memory or int(_memory() * MEMORY_SHARE)
    return Capacity(cpu, memory, dict(settings.worker_gpus))


def capabilities(settings: Settings) -> tuple[str, ...]:
    """Return the queues that this worker may read."""
    return ("cpu", *(f"gpu-{kind}" for kind in settings.worker_gpus))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    """Return the machine's memory in MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
