"""What this machine has and what of it is promised to containers."""

import os
from dataclasses import dataclass

from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import Pool
from tidemill_worker import decisions
from tidemill_worker.devices import Device, counted
from tidemill_worker.gpus import Gpus, Holder
from tidemill_worker.settings import Settings

MEMORY_SHARE = 0.95  # of the machine's memory that containers may take in all


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one container holds."""

    pool: Pool
    devices: tuple[Device, ...] = ()


class Room:
    """The machine's capacity, what is left of it, and who has the rest."""

    def __init__(self, cpu: float, memory: int, gpus: Gpus) -> None:
        self._cpu, self._memory = cpu, memory
        self._free_cpu, self._free_memory = cpu, memory
        self._gpus = gpus
        self._held: dict[str, Reservation] = {}
        self._lent: set[str] = set()

    @property
    def total(self) -> Capacity:
        """What containers may take in all."""
        return Capacity(self._cpu, self._memory, self._gpus.total())

    @property
    def free(self) -> Capacity:
        """What nobody has."""
        return Capacity(self._free_cpu, self._free_memory, self._gpus.free())

    def reserve(self, container: str, pool: Pool, *, overcommit: bool) -> Reservation | str:
        """Take what a container of a pool needs, or return why that cannot be."""
        devices: tuple[Device, ...] | None = None
        while devices is None:
            grant = decisions.fit(pool, self.free, self.total, overcommit=overcommit)
            if isinstance(grant, str):
                return grant
            devices = self._gpus.take(Holder(container, pool), grant.gpu, grant.count)
        self._free_cpu -= pool.spec.resources.cpu
        self._free_memory -= pool.spec.resources.memory
        self._held[container] = reservation = Reservation(pool, devices)
        return reservation

    def release(self, container: str) -> None:
        """Give back what a container held."""
        self.lend(self._lent - {container})
        reservation = self._held.pop(container, None)
        if reservation is None:
            return
        self._gpus.give_back(container)
        self._free_cpu += reservation.pool.spec.resources.cpu
        self._free_memory += reservation.pool.spec.resources.memory

    def gpus_of(self, container: str) -> dict[str, int]:
        """Return how many GPUs of each type a container has."""
        reservation = self._held.get(container)
        return counted(reservation.devices) if reservation else {}

    def lend(self, containers: set[str]) -> bool:
        """Let others use the cores of exactly these containers; return whether that changes anything.

        Cores that are taken back may be in use: fewer than none are free then, until somebody ends.
        """
        lent = containers & self._held.keys()
        if lent == self._lent:
            return False
        more = sum(self._cores_of(one) for one in lent - self._lent)
        less = sum(self._cores_of(one) for one in self._lent - lent)
        self._free_cpu += more - less
        self._lent = lent
        return True

    def _cores_of(self, container: str) -> float:
        return self._held[container].pool.spec.resources.cpu


def room(settings: Settings, gpus: Gpus) -> Room:
    """Return what containers may take in all: as declared, else what this machine has."""
    cpu = settings.worker_cpu or float(_cores())
    memory = settings.worker_memory or int(_memory() * MEMORY_SHARE)
    return Room(cpu, memory, gpus)


def capabilities(total: Capacity) -> tuple[str, ...]:
    """Return the kinds of queues that a worker with this capacity takes inputs of."""
    return ("cpu", *(f"gpu-{kind}" for kind in total.gpus))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    """Return the machine's memory in MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
