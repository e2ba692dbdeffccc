"""What a container asks for, and on which workers: cores, memory, GPUs, regions. All raise `InvalidError`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tidemill import _given
from tidemill._wire.specs import Resources
from tidemill.exception import InvalidError

DEFAULT_CPU = 0.125  # cores
DEFAULT_MEMORY = 128  # MiB
MAX_GPUS = 64  # of one container

_GPU = re.compile(r"(?P<type>[A-Za-z0-9_-]{1,32}[!+]?)(?::(?P<count>\d{1,3}))?")
_LABEL = re.compile(r"[A-Za-z0-9_./*-]{1,63}")


def resources(given: Mapping[str, Any]) -> Resources:
    """Return what a container asks for."""
    cpu, cpu_limit = _given.pair("cpu", given["cpu"], (int, float), DEFAULT_CPU)
    memory, memory_limit = _given.pair("memory", given["memory"], (int,), DEFAULT_MEMORY)
    disk = given["ephemeral_disk"]
    if disk is not None:
        _given.check_number("ephemeral_disk", disk, (int,))
    return Resources(
        cpu=float(cpu),
        cpu_limit=None if cpu_limit is None else float(cpu_limit),
        memory=int(memory),
        memory_limit=None if memory_limit is None else int(memory_limit),
        ephemeral_disk=disk,
        gpus=parse_gpus(given["gpu"]),
    )


def parse_gpus(gpu: Any) -> tuple[tuple[str, int], ...]:
    """Return GPUs as (type, count), in order of preference: `"H100:2"`, `["h100", "a100"]`, `"any"`."""
    if gpu is None:
        return ()
    wanted = [gpu] if isinstance(gpu, str) else gpu
    if not isinstance(wanted, list | tuple) or not wanted:
        raise InvalidError(f"gpu has to be a string or a list of strings, not {gpu!r}")
    return tuple(dict.fromkeys(_parse_gpu(item) for item in wanted))


def _parse_gpu(item: Any) -> tuple[str, int]:
    match = _GPU.fullmatch(item) if isinstance(item, str) else None
    count = int(match["count"] or 1) if match else 0
    if match is None or not 1 <= count <= MAX_GPUS:
        raise InvalidError(f"not a GPU: {item!r}", hint="for example 'A100', 'H100:2' or 'any'")
    kind = match["type"].upper()
    return ("any" if kind == "ANY" else kind), count


def labels(given: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the labels that a worker must carry: `region` and `cloud`, where they say anything."""
    regions = choices("region", given["region"])
    clouds = choices("cloud", given["cloud"])
    if len(clouds) > 1:
        raise InvalidError(f"cloud has to be one string, not {given['cloud']!r}")
    labels = {"region": regions, "cloud": () if clouds == ("auto",) else clouds}
    return {name: values for name, values in labels.items() if values}


def choices(name: str, value: Any) -> tuple[str, ...]:
    """Return one label or several."""
    if value is None:
        return ()
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not values:
        raise InvalidError(f"{name} has to be a string or a list of strings, not {value!r}")
    for item in values:
        if not isinstance(item, str) or not _LABEL.fullmatch(item):
            raise InvalidError(f"not a {name}: {item!r}", hint="for example 'us-east'")
    return tuple(values)
