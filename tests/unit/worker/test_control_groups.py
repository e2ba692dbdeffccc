"""Control groups of version 2: what is written where, and what is read."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tidemill._wire.specs import Resources
from tidemill_worker.children import Children
from tidemill_worker.sandbox.cgroups import Cgroups
from tidemill_worker.sandbox.egress import Egress
from tidemill_worker.sandbox.tier import Bubblewrap

_MIB = 1 << 20


def text(path: Path) -> str:
    return path.read_text()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The root of a tree that is ours, as far as files show it."""
    (tmp_path / "cgroup.subtree_control").touch()
    return tmp_path


def test_a_container_has_one_group_with_all_its_limits(tree: Path) -> None:
    groups = Cgroups.of_version_2(tree, "", "mine")
    assert text(tree / "cgroup.subtree_control") == "+cpu +memory +pids"
    assert text(tree / "mine" / "cgroup.subtree_control") == "+cpu +memory +pids"
    groups.add("co-1", 77, Resources(cpu=2, cpu_limit=3, memory_limit=64), 99)
    group = tree / "mine" / "co-1"
    found = {path.name: path.read_text() for path in group.iterdir()}
    assert found == {
        "cpu.weight": "200", "cpu.max": "300000 100000", "memory.max": str(64 * _MIB), "memory.swap.max": "0",
        "pids.max": "99", "cgroup.procs": "77",
    }  # fmt: skip


def test_a_worker_below_somebody_elses_root_makes_room_for_groups_in_its_own(tmp_path: Path) -> None:
    own = tmp_path / "user.slice" / "worker.service"
    own.mkdir(parents=True)  # the root has no file that could be written
    Cgroups.of_version_2(tmp_path, "user.slice/worker.service", "mine")
    assert text(own / "mine-worker" / "cgroup.procs") == str(os.getpid())
    assert text(own / "cgroup.subtree_control") == "+cpu +memory +pids"
    assert (own / "mine").is_dir()


def test_out_of_memory_is_what_the_kernel_counted(tree: Path) -> None:
    groups = Cgroups.of_version_2(tree, "", "mine")
    assert groups.memory("co-1") is None, "there is no such group"
    group = tree / "mine" / "co-1"
    group.mkdir()
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 31\noom 2\noom_kill 1\noom_group_kill 0\n")
    (group / "memory.max").write_text(f"{64 * _MIB}\n")
    memory = groups.memory("co-1")
    assert memory is not None
    assert (memory.kills, memory.limit, memory.peak) == (1, 64 * _MIB, 0), "kernels before 5.19 know no peak"
    (group / "memory.peak").write_text(f"{63 * _MIB}\n")
    (group / "memory.max").write_text("max\n")
    memory = groups.memory("co-1")
    assert memory is not None
    assert (memory.limit, memory.peak) == (0, 63 * _MIB)


async def test_a_container_that_could_not_become_a_spare_has_a_group_of_its_own(
    tree: Path, tmp_path: Path
) -> None:
    groups = Cgroups.of_version_2(tree, "", "mine")
    ids: Any = SimpleNamespace(owns_files=True, first=0, first_group=0)
    tier = Bubblewrap(
        Children(), ids, groups, Egress(None, (), ""), None,
        layer=tmp_path, code=tmp_path, folder=tmp_path, tasks=99,
    )  # fmt: skip
    groups.add("spare-0", 77, Resources(), 99)
    tier._names["spare-0"] = os.open(os.devnull, os.O_RDONLY)  # no namespace: it cannot be named
    reservation: Any = SimpleNamespace(pool=SimpleNamespace(spec=SimpleNamespace(resources=Resources())))
    sockets: Any = None
    with pytest.raises(OSError, match="setns"):
        tier.adopt("spare-0", "co-1", reservation, sockets)
    groups.add("co-1", 78, Resources(memory_limit=64), 99)
    (tree / "mine" / "co-1" / "memory.events").touch()
    memory = groups.memory("co-1")
    assert memory is not None
    assert memory.limit == 64 * _MIB
