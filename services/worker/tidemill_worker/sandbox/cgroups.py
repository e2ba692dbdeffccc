"""Control groups of containers, version 1 or 2, written as files by the worker itself.

    <hierarchy>/<where this worker may>/tidemill-<slot>/<container>

CPU requests are weights: they hold when the machine is full. Only a limit sets a quota. Memory is limited
where the function says so by `memory=(request, limit)`; a request alone is what the worker reserves.
"""

import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidemill._wire.specs import Resources

PERIOD = 100_000  # microseconds, of a quota
SHARES = 1024  # of one core, in version 1
WEIGHT = 100  # of one core, in version 2
_MIB = 1 << 20
_REMOVAL = 10.0  # seconds that the kernel gets to let go of a group's dead processes
_CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Memory:
    """What the kernel counted for a container: kills at the limit, and bytes."""

    kills: int
    limit: int
    peak: int


def values(resources: Resources, version: int, tasks: int) -> dict[str, dict[str, str]]:
    """Return what is written for a container: file and content, by controller."""
    limit = resources.memory_limit
    quota = None if resources.cpu_limit is None else max(1000, int(resources.cpu_limit * PERIOD))
    if version == 1:
        cpu = {"cpu.shares": str(max(2, int(resources.cpu * SHARES)))}
        if quota is not None:
            cpu |= {"cpu.cfs_period_us": str(PERIOD), "cpu.cfs_quota_us": str(quota)}
        memory = {} if limit is None else {"memory.limit_in_bytes": str(limit * _MIB)}
    else:
        cpu = {"cpu.weight": str(min(10_000, max(1, int(resources.cpu * WEIGHT))))}
        if quota is not None:
            cpu["cpu.max"] = f"{quota} {PERIOD}"
        memory = {} if limit is None else {"memory.max": str(limit * _MIB), "memory.swap.max": "0"}
    return {"cpu": cpu, "memory": memory, "pids": {"pids.max": str(tasks)}}


_OPTIONAL = {"memory.swap.max"}  # not there where the kernel knows no swap


class Cgroups:
    """The groups of one worker: by controller the folder that those of its containers are in.

    `lacking` says what cannot be limited, and why.
    """

    def __init__(
        self, folders: dict[str, Path], version: int, lacking: str = "", beside: Path | None = None
    ) -> None:
        """`beside` is the worker's own group, where it needs one."""
        self.version = version
        self.lacking = lacking
        self._folders = folders
        self._beside = beside
        self._names: dict[str, str] = {}  # of the groups of containers that were spares

    @classmethod
    def open(cls, name: str, memory: int) -> "Cgroups":
        """Make this worker's folders, without what a dead one of that name left.

        All its containers together get `memory` MiB, whatever each of them may have.
        """
        mounts = _mounts()
        try:
            if all(controller in mounts for controller in _CONTROLLERS):
                found = cls(_version_1(mounts, name), 1)
            elif "" in mounts:
                found = cls.of_version_2(mounts[""], _own(""), name)
            else:
                return cls({}, 0, "there are no control groups")
        except OSError as error:
            return cls({}, 0, f"control groups cannot be written: {error.strerror}")
        folders = found._folders
        if not all(os.access(folder, os.W_OK) for folder in folders.values()):
            return cls({}, 0, "control groups cannot be written: they are somebody else's")
        found.sweep()
        with suppress(OSError):
            file = "memory.limit_in_bytes" if found.version == 1 else "memory.max"
            (folders["memory"] / file).write_text(str(memory * _MIB))
        return found

    @classmethod
    def of_version_2(
        cls, mount: Path, own: str, name: str, controllers: tuple[str, ...] = _CONTROLLERS
    ) -> "Cgroups":
        """Make the folder below the root of the tree, or, where that is not ours, below our `own` group.

        A group that has processes cannot hand controllers down, unless it is the root: the worker moves
        into a group of its own beside its containers'.

        Raises:
            OSError: neither can be written, or has other processes too.
        """
        beside, parent = None, mount
        if not os.access(mount / "cgroup.subtree_control", os.W_OK):
            parent = mount / own
            beside = parent / f"{name}-worker"
            beside.mkdir(exist_ok=True)
            (beside / "cgroup.procs").write_text(str(os.getpid()))
        folder = parent / name
        for group in (parent, folder):
            group.mkdir(exist_ok=True)
            (group / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in controllers))
        return cls(dict.fromkeys(controllers, folder), 2, beside=beside)

    def add(self, container: str, pid: int, resources: Resources, tasks: int) -> None:
        """Put a container's first process into a group of its own; `OSError` if it cannot be."""
        limits = values(resources, self.version, tasks)
        for folder in set(self._folders.values()):
            group = folder / container
            group.mkdir(exist_ok=True)
            for controller in (one for one in limits if self._folders.get(one) == folder):
                for name, value in limits[controller].items():
                    _write(group, name, value)
            (group / "cgroup.procs").write_text(str(pid))

    def hand_over(self, spare: str, container: str, resources: Resources, tasks: int) -> None:
        """Make a spare's group a container's; `OSError` if it has more than the container may."""
        usual, limits = values(Resources(), self.version, tasks), values(resources, self.version, tasks)
        for controller in limits:
            group = self._folders[controller] / spare
            for name, value in limits[controller].items():
                if value != usual[controller].get(name):
                    _write(group, name, value)
        self._names[container] = spare

    def memory(self, container: str) -> Memory | None:
        """Return what the kernel counted, or None where it does not count."""
        if "memory" not in self._folders:
            return None
        group = self._folders["memory"] / self._names.get(container, container)
        try:
            if self.version == 1:
                return Memory(
                    _field(group / "memory.oom_control", "oom_kill"),
                    int((group / "memory.limit_in_bytes").read_text()),
                    int((group / "memory.max_usage_in_bytes").read_text()),
                )
            limit = (group / "memory.max").read_text().strip()
            peak = group / "memory.peak"  # since Linux 5.19
            return Memory(
                _field(group / "memory.events", "oom_kill"),
                0 if limit == "max" else int(limit),
                int(peak.read_text()) if peak.exists() else 0,
            )
        except (OSError, ValueError):
            return None

    def remove(self, container: str) -> None:
        """Remove a container's groups, with whatever still runs in them."""
        group = self._names.pop(container, container)
        for folder in set(self._folders.values()):
            _remove(folder / group)

    def sweep(self) -> int:
        """End and remove everything that is left of earlier containers; return how many groups there were."""
        count = 0
        for folder in set(self._folders.values()):
            for group in folder.iterdir():
                if group.is_dir():
                    _remove(group)
                    count += 1
        return count

    def close(self) -> None:
        """Remove the folders."""
        self.sweep()
        for folder in set(self._folders.values()):
            with suppress(OSError):
                folder.rmdir()
        if self._beside is not None:
            with suppress(OSError):
                self._leave(self._beside)

    def _leave(self, beside: Path) -> None:
        """Go back to where we were, which must hand nothing down for that."""
        parent = beside.parent
        (parent / "cgroup.subtree_control").write_text(" ".join(f"-{one}" for one in self._folders))
        (parent / "cgroup.procs").write_text(str(os.getpid()))
        beside.rmdir()


def sweep(names: Iterable[str]) -> None:
    """Remove the groups that dead workers of these names left, wherever those were started."""
    left = {each for name in names for each in (name, f"{name}-worker")}
    for mount in set(_mounts().values()):
        for folder in named(mount, left):
            for group in (*filter(Path.is_dir, folder.iterdir()), folder):
                _remove(group)


def named(mount: Path, names: Collection[str]) -> list[Path]:
    """Return the groups of these names, wherever in a hierarchy. Others come and go meanwhile."""
    return [Path(place, group) for place, groups, _ in os.walk(mount) for group in groups if group in names]


def _write(group: Path, name: str, value: str) -> None:
    with suppress(*([OSError] if name in _OPTIONAL else [])):
        (group / name).write_text(value)


def _remove(group: Path) -> None:
    until = time.monotonic() + _REMOVAL
    while time.monotonic() < until:
        for pid in _processes(group):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # its processes are not quite gone
            time.sleep(0.002)
        else:
            return


def _processes(group: Path) -> Iterator[int]:
    with suppress(OSError):
        for line in (group / "cgroup.procs").read_text().split():
            if line != "0":
                yield int(line)


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _mounts() -> dict[str, Path]:
    """Return where the hierarchies are: version 1 by controller, version 2 by the empty name."""
    found: dict[str, Path] = {}
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        _, path, kind, options, *_rest = line.split()
        if kind == "cgroup":
            found |= {name: Path(path) for name in options.split(",") if name in _CONTROLLERS}
        elif kind == "cgroup2":
            found.setdefault("", Path(path))
    return found


def _own(controller: str) -> str:
    """Return the group of this process, below its hierarchy's root."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path.lstrip("/")
    return ""


def _version_1(mounts: dict[str, Path], name: str) -> dict[str, Path]:
    folders = {}
    for controller in _CONTROLLERS:
        folder = mounts[controller] / _own(controller)
        if not folder.is_dir():  # a container that sees its own group as the root
            folder = mounts[controller]
        folders[controller] = folder / name
        folders[controller].mkdir(exist_ok=True)
    return folders
