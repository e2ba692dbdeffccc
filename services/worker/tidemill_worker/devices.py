"""The GPUs of a machine, as values."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tidemill._wire import gpus

_GIB = 1024  # MiB
# The parts of a name that say who made it and not what it is.
_MAKER = ("NVIDIA", "TESLA", "GEFORCE", "QUADRO", "GRAPHICS", "DEVICE")
_MAX_NAME = 32


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. `number` is its place on the PCI bus, by which CUDA counts; `memory` is in MiB.

    Only one that its driver tells of has a `uuid`; its device node is numbered `minor`.
    """

    number: int
    kind: str
    uuid: str = ""
    name: str = ""
    memory: int = 0
    minor: int = 0


def declared(counts: Mapping[str, int]) -> tuple[Device, ...]:
    """Return as many GPUs as the settings say that there are."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    return tuple(Device(number, kind) for number, kind in enumerate(kinds))


def counted(devices: Iterable[Device]) -> dict[str, int]:
    """Return how many there are of each type, in the order of their numbers."""
    return dict(Counter(device.kind for device in devices))


def type_of(name: str, memory: int) -> str:
    """Return the type of a GPU, as requests name it, by the driver's name for it and its MiB.

    One that requests have no name for is called what the driver calls it: `RTX-4090`.
    """
    words = [word for word in re.split(r"[^A-Z0-9]+", name.upper()) if word]
    if "A100" in words:
        return "A100-80GB" if memory > 60 * _GIB else "A100-40GB"
    if {"RTX", "PRO", "6000"} <= set(words):
        return "RTX-PRO-6000"
    known = [gpus.named(word) for word in words if gpus.named(word) in gpus.KNOWN]
    if known:
        return known[0]
    rest = [word for word in words if word not in _MAKER]
    return "-".join(rest or ["GPU"])[:_MAX_NAME].strip("-")
