"""Sandboxes as values: what stands where, what is refused, which limits are written."""

import errno
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidemill._container import syscalls
from tidemill._wire.specs import Resources
from tidemill_worker.images import Image
from tidemill_worker.sandbox import addresses, cgroups, layout, network, program, usernet
from tidemill_worker.sandbox.slots import Slot

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED, KILLED = 0x7FFF0000, 0x80000000


def judge(text: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Run a seccomp program on one system call, as the kernel does."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("=HBBI", text))
    at = accumulator = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
            continue
        true = {0x15: accumulator == value, 0x45: bool(accumulator & value), 0x35: accumulator >= value}[code]
        at += yes if true else no


def refused(text: bytes, machine: str, name: str, *arguments: int) -> int:
    numbers = {"x86_64": program._X86_64, "aarch64": program._AARCH64}[machine]
    found = judge(text, ARCHITECTURES[machine], numbers[name], *arguments)
    return found & 0xFFFF if found != ALLOWED else 0


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_user_code_makes_no_namespace_and_no_mount(machine: str) -> None:
    text = program.of_containers(machine)
    for name in ("mount", "unshare", "setns", "move_mount", "pivot_root", "bpf", "keyctl", "io_uring_setup"):
        assert refused(text, machine, name) == errno.EPERM, name
    assert refused(text, machine, "clone3") == errno.ENOSYS
    assert refused(text, machine, "clone", syscalls.NEWUSER | 17) == errno.EPERM
    assert refused(text, machine, "clone", 0x01200011) == 0, "a fork"
    assert refused(text, machine, "socket", 40) == errno.EPERM, "to the hypervisor"
    assert refused(text, machine, "socket", 2) == 0
    assert refused(text, machine, "ioctl", 0, 0x5412) == errno.EPERM, "typing into a terminal"
    assert refused(text, machine, "ioctl", 0, 0x5413) == 0


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_template_makes_namespaces_but_has_no_way_deep_into_the_kernel(machine: str) -> None:
    text = program.of_templates(machine)
    assert refused(text, machine, "mount") == refused(text, machine, "unshare") == 0
    assert refused(text, machine, "bpf") == errno.EPERM
    assert refused(text, machine, "kexec_load") == errno.EPERM


def test_calls_of_another_architecture_end_the_process() -> None:
    text = program.of_containers("x86_64")
    assert judge(text, 0x40000003, 1) == KILLED
    assert judge(text, ARCHITECTURES["x86_64"], 0x40000000 | 1) & 0xFFFF == errno.ENOSYS


def image(tmp_path: Path, layers: tuple[Path, ...] = ()) -> Image:
    installed = tmp_path / "pythons" / "3.12" / "bin" / "python3.12"
    installed.parent.mkdir(parents=True)
    installed.touch()
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(installed)
    return Image("key", python, "3.12", None if layers else python.parent.parent, layers)


def test_nothing_of_the_machine_is_in_a_sandbox_but_usr_and_what_is_needed_of_etc(tmp_path: Path) -> None:
    found = layout.of(image(tmp_path), layer=Path("/layer"), code=Path("/code"), resolvers=("9.9.9.9",))
    targets = [target for _source, target in found.binds]
    assert ("/usr", "/usr") in found.binds
    assert str(tmp_path / "pythons" / "3.12") in targets, "where the environment looks for its Python"
    assert {target for target in targets if target.startswith("/etc/")} <= {
        f"/etc/{name}" for name in (*layout._COPIED, *layout._BOUND)
    }
    assert dict(found.files)["/etc/resolv.conf"] == "nameserver 9.9.9.9\n"
    assert ("/tmp", 0o1777) in found.folders


def test_an_image_with_layers_brings_its_own_usr(tmp_path: Path) -> None:
    layers = (Path("/layers/2"), Path("/layers/1"))
    found = layout.of(image(tmp_path, layers), layer=Path("/layer"), code=Path("/code"), resolvers=())
    assert found.layers == ("/layers/2", "/layers/1")
    assert "/usr" not in [target for _source, target in found.binds]
    assert "/etc/passwd" not in dict(found.files)


@pytest.mark.parametrize(
    ("version", "files"),
    [
        (
            1,
            {
                "cpu.shares": "512", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000",
                "memory.limit_in_bytes": str(64 << 20), "pids.max": "99",
            },
        ),
        (
            2,
            {
                "cpu.weight": "50", "cpu.max": "150000 100000", "memory.max": str(64 << 20),
                "memory.swap.max": "0", "pids.max": "99",
            },
        ),
    ],
)  # fmt: skip
def test_requests_are_weights_and_only_limits_are_hard(version: int, files: dict[str, str]) -> None:
    found = cgroups.values(Resources(cpu=0.5, cpu_limit=1.5, memory_limit=64), version, 99)
    assert {name: value for each in found.values() for name, value in each.items()} == files
    unlimited = cgroups.values(Resources(cpu=0.5), version, 99)
    assert unlimited["memory"] == {}
    assert not {"cpu.max", "cpu.cfs_quota_us"} & set(unlimited["cpu"])


def test_workers_of_one_machine_have_addresses_and_names_of_their_own() -> None:
    pairs = [network.pair_of(slot, number) for slot in range(64) for number in (0, 1, 511)]
    assert len({pair.address for pair in pairs} | {pair.host for pair in pairs}) == 2 * len(pairs)
    assert len({pair.name for pair in pairs}) == len(pairs)
    assert all(len(name) < 16 for pair in pairs for name in (pair.name, pair.peer)), "the kernel's limit"


def test_only_resolvers_are_open_and_only_for_questions() -> None:
    text = network.rules(3, ("10.1.1.1",), ("10.0.0.0/8",))
    allowed = text.index("ip daddr { 10.1.1.1 } meta l4proto { tcp, udp } th dport 53 accept")
    assert allowed < text.index("ip daddr { 10.0.0.0/8 } reject")
    assert text.count("tidemill_3") == 3
    assert "dport 53" not in network.rules(3, (), ("10.0.0.0/8",))


def test_the_loopback_is_not_reached_by_way_of_a_program_either() -> None:
    assert "--disable-host-loopback" in usernet.command("/usr/bin/slirp4netns", 7)
    assert "--no-map-gw" in usernet.command("/usr/bin/pasta", 7)


def test_the_machines_own_addresses_are_read_from_the_kernels_table() -> None:
    lines = [
        "  +-- 0.0.0.0/0 3 0 5", "     |-- 127.0.0.1", "        /32 host LOCAL",
        "     |-- 192.0.2.2", "        /32 host LOCAL", "     |-- 192.0.2.255", "        /32 link BROADCAST",
    ]  # fmt: skip
    assert addresses._local(lines) == ("192.0.2.2",)


def test_a_slot_is_found_although_the_last_worker_takes_the_folder_away(tmp_path: Path) -> None:
    def come_and_go(_number: int) -> int:
        for _ in range(200):
            Slot.take(tmp_path / "slots").release()
        return 200

    with ThreadPoolExecutor(3) as workers:
        assert list(workers.map(come_and_go, range(3))) == [200, 200, 200]


def test_a_slot_is_held_by_one_worker_and_found_when_that_is_dead(tmp_path: Path) -> None:
    first, second = Slot.take(tmp_path / "slots"), Slot.take(tmp_path / "slots")
    assert (first.number, second.number) == (0, 1)
    os.close(second._lock)  # as its end does
    assert first.abandoned() == [1]
    assert Slot.take(tmp_path / "slots").number == 1
