"""Who has which GPU of this machine.

             ┌────────────── give back ──────────────┐
    free ── take ──> taken ── its container ended ──> clearing ── in use after 30 s ──> set aside
      └─ somebody else ─> in use elsewhere                └─────── its memory is free ──────┴──> free

A GPU is given as a whole, to one container. One that the driver tells of is also claimed on the machine, so
that several workers do not give the same one away, and is offered again when nothing computes on it any more
and its memory is back. GPUs that are only declared have no driver: they are free as soon as they are back.
"""

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tidemill._wire.scheduling import GpuState
from tidemill._wire.specs import Pool
from tidemill_worker.devices import Device, counted
from tidemill_worker.nvml import Reading

PATIENCE = 30.0  # seconds for the memory of a GPU to be free after its container has ended
SLACK = 64  # MiB by which the memory in use may differ between two times at which nobody uses it


class Standing(StrEnum):
    """Whether a GPU can be given to a container, and why not."""

    FREE = "free"
    TAKEN = "taken"
    CLEARING = "clearing"
    ASIDE = "set aside"
    ELSEWHERE = "in use elsewhere"


class Holder(NamedTuple):
    """Who has a GPU, or had it last: a container and the pool that it was of."""

    container: str
    pool: Pool


@dataclass(slots=True)
class Gpu:
    """One GPU and what became of it. `before` is the memory in use (MiB) when nobody had it."""

    device: Device
    standing: Standing = Standing.FREE
    since: float = 0.0
    holder: Holder | None = None
    before: int = 0
    note: str = ""
    claim: socket.socket | None = field(default=None, repr=False)


def judge(gpu: Gpu, reading: Reading, *, claimed: bool, now: float) -> tuple[Standing, str]:
    """Return where a GPU that no container has stands, by what it is used for, and what there is to say.

    `claimed` says that another worker of this machine has it.
    """
    ours = gpu.standing in (Standing.CLEARING, Standing.ASIDE)
    if claimed:
        return Standing.ELSEWHERE, "another worker of this machine has it"
    left = reading.used - gpu.before
    if not reading.processes and not (ours and left > SLACK):
        return Standing.FREE, ""
    what = f"{reading.processes} processes" if reading.processes else f"{left} MiB of its memory"
    if not ours:
        return Standing.ELSEWHERE, f"in use by {what}"
    if gpu.standing is Standing.ASIDE or now - gpu.since > PATIENCE:
        return Standing.ASIDE, f"still in use by {what} {PATIENCE:.0f} s after its container ended"
    return Standing.CLEARING, ""


class Gpus:
    """The GPUs of this worker."""

    def __init__(self, devices: Iterable[Device], clock: Callable[[], float]) -> None:
        self._gpus = [Gpu(device) for device in devices]
        self._clock = clock
        self.on_back: Callable[[], None] = lambda: None

    def total(self) -> dict[str, int]:
        """Return how many there are of each type, without those that are set aside."""
        return self._count(lambda gpu: gpu.standing is not Standing.ASIDE)

    def free(self) -> dict[str, int]:
        """Return how many of each type can be taken."""
        return self._count(lambda gpu: gpu.standing is Standing.FREE)

    def _count(self, counts: Callable[[Gpu], bool]) -> dict[str, int]:
        none = dict.fromkeys((gpu.device.kind for gpu in self._gpus), 0)
        return none | counted(gpu.device for gpu in self._gpus if counts(gpu))

    def states(self) -> tuple[GpuState, ...]:
        """Return them for the worker's report."""
        return tuple(
            GpuState(
                gpu.device.kind,
                gpu.device.name,
                gpu.device.uuid,
                gpu.device.memory,
                gpu.standing.value,
                gpu.note,
            )
            for gpu in self._gpus
        )

    def take(self, holder: Holder, kind: str, count: int) -> tuple[Device, ...] | None:
        """Give a container GPUs of a type; None if others were quicker, and those are not free any more."""
        chosen: list[Gpu] = []
        for gpu in self._gpus:
            if len(chosen) < count and gpu.device.kind == kind and gpu.standing is Standing.FREE:
                if self._claim(gpu):
                    chosen.append(gpu)
                else:
                    self._enter(gpu, Standing.ELSEWHERE, "another worker of this machine has it")
        if len(chosen) < count:
            for gpu in chosen:
                self._let_go(gpu)
            return None
        for gpu in chosen:
            gpu.holder = holder
            self._enter(gpu, Standing.TAKEN)
        return tuple(gpu.device for gpu in chosen)

    def give_back(self, container: str) -> None:
        """Take back what a container had, once all its processes have ended."""
        taken = [gpu for gpu in self._gpus if gpu.standing is Standing.TAKEN]
        mine = [gpu for gpu in taken if gpu.holder and gpu.holder.container == container]
        for gpu in mine:
            self._enter(gpu, Standing.CLEARING if gpu.device.uuid else Standing.FREE)
        if mine:
            self.on_back()

    def open(self) -> tuple[Gpu, ...]:
        """Return those whose use is to be looked at: the driver tells of them, and no container has them."""
        return tuple(gpu for gpu in self._gpus if gpu.device.uuid and gpu.standing is not Standing.TAKEN)

    def take_in(self, gpu: Gpu, reading: Reading) -> bool:
        """Take in what a GPU is used for; return whether that changes where it stands."""
        if gpu.standing is Standing.TAKEN:
            return False  # since it was asked
        claimed = gpu.claim is None and is_claimed(gpu.device)
        standing, note = judge(gpu, reading, claimed=claimed, now=self._clock())
        if standing in (Standing.FREE, Standing.ELSEWHERE):
            gpu.before = reading.used
        return self._enter(gpu, standing, note)

    def fail(self, gpu: Gpu, why: str) -> bool:
        """Set a GPU aside that does not answer; return whether that is news."""
        if gpu.standing is Standing.TAKEN:
            return False  # since it was asked: it is looked at again when it is back
        return self._enter(gpu, Standing.ASIDE, f"the driver cannot reach it: {why}")

    def _enter(self, gpu: Gpu, standing: Standing, note: str = "") -> bool:
        gpu.note = note
        if standing is gpu.standing:
            return False
        gpu.standing, gpu.since = standing, self._clock()
        if standing in (Standing.FREE, Standing.ELSEWHERE):
            gpu.holder = None
            self._let_go(gpu)
        return True

    # --- on this machine

    def _claim(self, gpu: Gpu) -> bool:
        if gpu.device.uuid and gpu.claim is None:
            gpu.claim = claim(gpu.device)
            return gpu.claim is not None
        return True

    def _let_go(self, gpu: Gpu) -> None:
        if gpu.claim is not None:
            gpu.claim.close()
            gpu.claim = None

    def close(self) -> None:
        """Let others have all of them."""
        for gpu in self._gpus:
            self._let_go(gpu)


def claim(device: Device) -> socket.socket | None:
    """Return what keeps a GPU from other workers of this machine; None if one of them has it.

    The kernel takes the name back whatever becomes of this process.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind(f"\0tidemill/gpu/{device.uuid}")
    except OSError:
        sock.close()
        return None
    return sock


def is_claimed(device: Device) -> bool:
    """Return whether a worker of this machine has a GPU."""
    sock = claim(device)
    if sock is not None:
        sock.close()
    return sock is None


def variables(devices: Iterable[Device], *, alone: bool) -> Mapping[str, str]:
    """Return what tells a container which GPUs it has: by numbers, and by names where they have some.

    `alone` says that it sees no others, so that they are numbered from 0 there.
    """
    devices = tuple(devices)
    numbers = ",".join(str(place if alone else device.number) for place, device in enumerate(devices))
    names = ",".join(device.uuid or str(device.number) for device in devices)
    found = {"CUDA_VISIBLE_DEVICES": numbers, "NVIDIA_VISIBLE_DEVICES": names or "void"}
    return found | ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if devices else {})
