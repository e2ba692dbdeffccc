"""Trials: what user code could try against the machine, tried by ourselves, harmlessly.

They run where user code would run, once when a worker starts, and say what held. Nothing is changed where
a trial succeeds: files are opened and not written, what is mounted is taken away again. What is
dangerous even so (filling disk and memory, starting processes without end) is not tried here: those limits
are the worker's own, which knows whether it could set them.
"""

import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tidemill._container import processes, syscalls
from tidemill._container.sandbox import Enter

TIMEOUT = 0.5  # seconds that a connection may take
_SYSCTLS = ("kernel/core_pattern", "kernel/domainname", "vm/overcommit_memory", "net/ipv4/ip_forward")
_DEVICES = (
    "/dev/mem",
    "/dev/kmsg",
    "/dev/vda",
    "/dev/sda",
    "/dev/nvme0n1",
    "/dev/loop0",
    "/dev/kvm",
    "/dev/fuse",
)
_CALLS = {
    "x86_64": {"bpf": 321, "perf_event_open": 298, "keyctl": 250, "io_uring_setup": 425, "userfaultfd": 323},
    "aarch64": {"bpf": 280, "perf_event_open": 241, "keyctl": 219, "io_uring_setup": 425, "userfaultfd": 282},
}
_AF_VSOCK = 40
_SIOCGIFADDR = 0x8915
_PRIVATE = ("10.255.255.1", "172.31.255.1", "192.168.255.1", "169.254.169.254")
# How a network says no: what a live machine on the other side never answers.
_REFUSALS = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM)


def run(told: dict[str, Any]) -> dict[str, bool]:
    """Try everything; return what held, by the names of `isolation.ROWS`.

    `told` is what an attacker would have to guess: `secret`, a private file of the worker; `pid`, the
    worker; `port`, on which it listens on the loopback and on `addresses`; `abstract`, the name of its
    abstract socket; `neighbour`, of a container beside this one: its `file`, `abstract` and `address`.
    """
    return {name: trial(told) for name, trial in _TRIALS.items()}


def settle(name: str) -> tuple[dict[str, str], socket.socket]:
    """Be the neighbour that others look for: return where to look, and what must stay open meanwhile."""
    path = f"/tmp/{name}"  # noqa: S108 - that is what is tried
    with open(path, "w") as file:  # noqa: PTH123
        file.write(name)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0{name}")
    sock.listen()
    return {"file": path, "abstract": name, "address": _own_address("eth0")}, sock


def _own_address(interface: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("16s24x", interface.encode()))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def _refused(action: Callable[..., object], *arguments: object) -> bool:
    try:
        action(*arguments)
    except OSError:
        return True
    return False


def _files(told: dict[str, Any]) -> bool:
    return all(_refused(_open, path, os.O_RDONLY) for path in (told["secret"], "/etc/shadow"))


def _identity(told: dict[str, Any]) -> bool:
    """Return whether our id outside is neither root nor the worker's."""
    with open("/proc/self/uid_map") as file:  # noqa: PTH123
        inside, outside, _count = file.readline().split()
    return int(outside) + os.getuid() - int(inside) not in (0, told["uid"]) and told["range"]


def _write(_told: dict[str, Any]) -> bool:
    """Return whether files of the machine cannot be opened to be written."""
    here = os.path.realpath(os.__file__)  # of the machine's Python, which every container runs
    return all(_refused(_open, path, os.O_WRONLY) for path in (here, "/usr/bin/env"))


def _mounts(_told: dict[str, Any]) -> bool:
    path = f"/tmp/mount-{os.getpid()}"  # noqa: S108
    os.mkdir(path)  # noqa: PTH102

    def mount() -> None:
        syscalls.mount("tmpfs", path, "tmpfs")
        syscalls.unmount(path)

    return _refused(mount) and all(_refused(_remount, at) for at in _read_only())


def _remount(path: str) -> None:
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("", path, flags=flags)
    syscalls.mount("", path, flags=flags | syscalls.MS_RDONLY)


def _read_only() -> list[str]:
    with open("/proc/self/mounts") as file:  # noqa: PTH123
        lines = [line.split() for line in file]
    return [path for _, path, _, options, *_rest in lines if "ro" in options.split(",")][:8]


def _sysctl(_told: dict[str, Any]) -> bool:
    return all(_refused(_open, f"/proc/sys/{name}", os.O_WRONLY) for name in _SYSCTLS)


def _devices(_told: dict[str, Any]) -> bool:
    path = f"/tmp/node-{os.getpid()}"  # noqa: S108

    def make() -> None:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 1))  # the machine's memory
        os.unlink(path)  # noqa: PTH108

    there = [node for node in _DEVICES if os.path.exists(node)]  # noqa: PTH110
    return _refused(make) and all(_refused(_open, node, os.O_RDONLY) for node in there)


def _processes(told: dict[str, Any]) -> bool:
    def visible() -> bool:
        with suppress(OSError), open(f"/proc/{told['pid']}/cmdline", "rb") as file:  # noqa: PTH123
            return told["command"].encode() in file.read()
        return False

    return not visible()


def _neighbours(told: dict[str, Any]) -> bool:
    other = told["neighbour"]
    reached = [_connects(socket.AF_UNIX, f"\0{other['abstract']}")]
    if address := other.get("address"):
        reached.append(_answers(address, told["port"]))
    return _refused(_open, other["file"], os.O_RDONLY) and not any(reached)


def _namespaces(_told: dict[str, Any]) -> bool:
    """Return whether a child of ours cannot make a user namespace. Here it would be for good."""
    child = os.fork()
    if not child:
        try:
            syscalls.unshare(syscalls.NEWUSER)
        except OSError:
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _kernel(_told: dict[str, Any]) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    refused = []
    for number in _CALLS[os.uname().machine].values():
        result = libc.syscall(number, 0, 0, 0, 0, 0)
        # A kernel that looks at the arguments finds fault with them.
        refused.append(result < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS))
        if result > 2:
            os.close(result)
    return all(refused) and _refused(lambda: socket.socket(_AF_VSOCK, socket.SOCK_STREAM).close())


def _loopback(told: dict[str, Any]) -> bool:
    return not _connects(socket.AF_INET, ("127.0.0.1", told["port"]))


def _addresses(told: dict[str, Any]) -> bool:
    return not any(_connects(socket.AF_INET, (address, told["port"])) for address in told["addresses"])


def _private(_told: dict[str, Any]) -> bool:
    return not any(_answers(address, 9) for address in _PRIVATE)


def _abstract(told: dict[str, Any]) -> bool:
    return not _connects(socket.AF_UNIX, f"\0{told['abstract']}")


def _open(path: str, flags: int) -> None:
    os.close(os.open(path, flags))


def _connects(family: int, address: Any) -> bool:
    with socket.socket(family) as sock:
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(address)
        except OSError:
            return False
        return True


def _answers(address: str, port: int) -> bool:
    """Return whether a packet to an address is let go, whoever answers, or nobody."""
    with socket.socket() as sock:
        sock.settimeout(TIMEOUT)
        try:
            sock.connect((address, port))
        except OSError as error:
            return error.errno not in _REFUSALS
        return True


_TRIALS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "files": _files,
    "identity": _identity,
    "write": _write,
    "mounts": _mounts,
    "sysctl": _sysctl,
    "devices": _devices,
    "processes": _processes,
    "neighbours": _neighbours,
    "namespaces": _namespaces,
    "kernel": _kernel,
    "loopback": _loopback,
    "addresses": _addresses,
    "private": _private,
    "abstract": _abstract,
}


def main(descriptors: list[int]) -> None:
    """Be two containers: a neighbour, and one that tries. Each has a runner's and a control socket.

    What they are told and what they answer are lines of JSON on the runner's socket.
    """
    processes.become_subreaper()
    enter = Enter()
    children = []
    for name, runner, control in zip(
        ("trial-0", "trial-1"), descriptors[::2], descriptors[1::2], strict=True
    ):
        pid = enter.fork(control, name)
        if not pid:
            _serve(runner)
            os._exit(0)
        children.append(pid)
    for descriptor in descriptors:
        os.close(descriptor)
    for pid in children:
        os.waitpid(pid, 0)


def _serve(descriptor: int) -> None:
    """Do what one line says, answer, and stay until the worker closes the socket."""
    with socket.socket(fileno=descriptor) as sock, sock.makefile("rw") as file:
        told = json.loads(file.readline())
        if "settle" in told:
            answer, stays = settle(told["settle"])
            file.write(json.dumps(answer) + "\n")
            file.flush()
            file.readline()
            stays.close()
        else:
            file.write(json.dumps(run(told)) + "\n")
