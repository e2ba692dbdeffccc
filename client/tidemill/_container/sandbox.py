"""The container's side of the sandbox: a fork of a template becomes a container of its own.

    template ── fork ──> child: new namespaces ── fork ──> pid 1
                                                             │ hello ──> worker: cgroup, network
                                                             │ <── its disk
                                                             │ own root meanwhile
                                                             │ <── go
                                                             └──> no capability, seccomp ──> ready, init

The template runs inside bubblewrap, in a user namespace whose ids own nothing on the machine, and keeps its
capabilities there, to make namespaces with. They are gone before any process of the container runs.

A template with user code in it has none either (`confine`): it has a root of its own as a container does,
with the template's put aside below /.tidemill, and its forks take a user namespace more, in which they may do
what they must to become containers. Their root has what that code wrote as its uppermost layer but one.
"""

import fcntl
import os
import resource
import socket
import struct
import sys
import time
from typing import Any, NamedTuple

import msgpack

from tidemill._container import processes, syscalls
from tidemill._container.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
)

HOLD = "/.tidemill"  # what the template has besides the image; gone from a container's sight
PLAN = f"{HOLD}/plan"
ROOT = f"{HOLD}/root"
SCRATCH = f"{HOLD}/scratch"
HELLO, READY, SORRY, DISK = b"h", b"k", b"!", b"d"

_NAMESPACES = syscalls.NEWNS | syscalls.NEWPID | syscalls.NEWIPC | syscalls.NEWUTS | syscalls.NEWNET
_QUIET = MS_NOSUID | MS_NODEV | MS_NOEXEC
_KEPT = MS_NODEV | MS_NOEXEC  # what a mount of another user namespace's has stays with its bind
_PID = struct.Struct("=i")
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid
_MAX_ANSWER = 1000


class Plan(NamedTuple):
    """What all containers of a template have in common.

    layers: the read-only folders that their root is made of, the uppermost first.
    binds: the paths of the template that they have too.
    program: the seccomp program of user code.
    """

    layers: tuple[str, ...]
    binds: tuple[str, ...]
    program: bytes

    @classmethod
    def read(cls) -> "Plan":
        """Return the plan that the worker laid down, if this is a sandbox."""
        with open(PLAN, "rb") as file:  # noqa: PTH123 - pathlib costs milliseconds
            return cls(**msgpack.unpackb(file.read()))


class Enter:
    """Makes containers of forks of this process."""

    def __init__(self) -> None:
        self._plan = Plan.read()
        self._aside = ""  # where the template's root is
        self._maps: socket.socket | None = None  # to who says which ids forks have

    def fork(self, control: int, container: str) -> int:
        """Fork a container; return its pid here, and 0 in the container itself.

        Raises:
            OSError: no process or no namespace could be made.
        """
        reading, writing = os.pipe()
        child = processes.fork_for_init(has_user_code=bool(self._aside))
        if not child:
            os.close(reading)
            self._leave(writing, control, container)
            return 0
        os.close(writing)
        answer = os.read(reading, _PID.size)
        os.close(reading)
        os.waitpid(child, 0)
        if len(answer) < _PID.size:
            raise OSError("its namespaces could not be made")
        return int(_PID.unpack(answer)[0])

    def confine(self, control: int, name: str) -> None:
        """Make this process what user code may run in. The worker shakes hands as with a container.

        Raises:
            OSError: no namespace could be made.
        """
        self._maps = _start_mapping()
        syscalls.unshare(syscalls.NEWNS)
        try:
            self._become(control, name, keeps=True)
        except Exception as error:
            _apologise(control, error)
        written = f"{SCRATCH}/{name}/upper"
        self._plan = self._plan._replace(layers=(written, *self._plan.layers))
        self._aside = HOLD

    def _leave(self, told: int, control: int, container: str) -> None:
        """In the child: take namespaces, and return in the first process inside them."""
        try:
            if self._maps is not None:
                _unshare_user(self._maps)
                self._maps.close()
            syscalls.unshare(_NAMESPACES)
            pid = processes.fork_for_init(has_user_code=bool(self._aside))
        except OSError as error:
            _apologise(control, error)
        if pid:
            os.write(told, _PID.pack(pid))
            os._exit(0)
        os.close(told)
        try:
            self._become(control, container)
        except Exception as error:
            _apologise(control, error)

    def _become(self, control: int, container: str, *, keeps: bool = False) -> None:
        """Become a container; with `keeps` what its forks need to become some is kept."""
        os.umask(0o022)
        syscalls.sethostname(container)
        os.write(control, HELLO)
        self._build_root(f"{SCRATCH}/{container}", _receive_disk(control), keeps=keeps)
        go = _await_go(control)
        if go["network"]:
            _configure_network(**go["network"])
        _start_interface("lo")
        for folder, place in go["copies"]:
            _copy(folder, place)
        _limit(go["limits"])
        syscalls.drop_capabilities()
        if not keeps:
            syscalls.install_filter(self._plan.program)
        os.write(control, READY)

    def _build_root(self, own: str, disk: int, *, keeps: bool) -> None:
        """Make the image, with an upper layer of our own, the root; nothing else stays in sight.

        With `keeps` the template's stays, below `HOLD`.
        """
        aside = self._aside
        syscalls.mount("", "/", flags=MS_REC | MS_PRIVATE)
        upper, work, root = f"{aside}{own}/upper", f"{aside}{own}/work", aside + ROOT
        os.mkdir(aside + own)  # noqa: PTH102
        if disk >= 0:
            syscalls.put_mount(disk, aside + own)
            os.close(disk)
        os.mkdir(upper)  # noqa: PTH102
        os.mkdir(work)  # noqa: PTH102
        lower = ":".join(aside + layer for layer in self._plan.layers)
        options = f"lowerdir={lower},upperdir={upper},workdir={work},userxattr"
        syscalls.mount("overlay", root, "overlay", MS_NODEV | MS_NOSUID, options)
        for path in self._plan.binds:
            syscalls.mount(aside + path, root + path, flags=MS_BIND | MS_REC)
        syscalls.mount(f"{aside}/dev", f"{root}/dev", flags=MS_BIND | MS_REC)
        flags = syscalls.MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID
        syscalls.mount("", f"{root}/dev", flags=flags | os.statvfs(f"{root}/dev").f_flag & _KEPT)
        syscalls.mount("tmpfs", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108
        pts = "newinstance,ptmxmode=0666,mode=620"
        syscalls.mount("devpts", f"{root}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, pts)
        syscalls.mount("proc", f"{root}/proc", "proc", _QUIET)
        os.chdir(root)
        syscalls.pivot_root(".", f".{HOLD}" if keeps else ".")
        if not keeps:
            syscalls.unmount(".")
        os.chdir("/")


def _receive_disk(control: int) -> int:
    """Return the mount in which what we write is to lie, -1 if that is a folder of the worker's."""
    with socket.socket(fileno=os.dup(control)) as sock:
        word, descriptors, _flags, _address = socket.recv_fds(sock, 1, 1)
    if word != DISK:
        os._exit(0)  # the worker is gone, or has changed its mind
    return descriptors[0] if descriptors else -1


def _start_mapping() -> socket.socket:
    """Fork who says which ids the user namespaces of our forks have: all that there are here.

    It keeps the capability for that, runs nothing else, is no child of ours, and ends with us. Whoever has
    the other end can have namespaces of its own mapped, to ids that it has anyway.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    if child := os.fork():
        theirs.close()
        os.waitpid(child, 0)
        return ours
    try:
        if not os.fork():
            ours.close()
            os.closerange(3, theirs.fileno())
            os.closerange(theirs.fileno() + 1, 1024)
            _map(theirs)
    finally:
        os._exit(0)


def _map(sock: socket.socket) -> None:
    with open("/proc/self/uid_map") as file:  # noqa: PTH123
        spans = [line.split() for line in file]
    ids = "".join(f"{first} {first} {count}\n" for first, _outside, count in spans)
    while True:
        data, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
        if not data:
            return
        pid = _CREDENTIALS.unpack(ancillary[0][2][: _CREDENTIALS.size])[0]
        try:
            for kind in ("uid_map", "gid_map"):
                with open(f"/proc/{pid}/{kind}", "w") as file:  # noqa: PTH123
                    file.write(ids)
            sock.send(READY)
        except OSError as error:
            sock.send(SORRY + str(error).encode())


def _unshare_user(maps: socket.socket) -> None:
    """Take a user namespace in which everything is allowed, with all ids."""
    syscalls.unshare(syscalls.NEWUSER)
    maps.send(HELLO)
    answer = maps.recv(_MAX_ANSWER)
    if answer != READY:
        raise OSError(f"the ids of a container cannot be mapped: {answer[1:].decode()}")


def _await_go(control: int) -> dict[str, Any]:
    """Return what the worker has to say, which knows our pid by our hello."""
    with socket.socket(fileno=os.dup(control)) as sock:
        size = int.from_bytes(_receive(sock, 4), "big")
        return dict(msgpack.unpackb(_receive(sock, size)))


def _receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            os._exit(0)  # the worker is gone, or has changed its mind
        data += piece
    return data


def _apologise(control: int, error: Exception) -> None:
    """Tell the worker why there is no container, and end."""
    try:
        os.write(control, SORRY + f"{type(error).__name__}: {error}".encode()[:1000])
    finally:
        sys.stderr.write(f"no sandbox: {error!r}\n")
        sys.stderr.flush()
        os._exit(1)


def _copy(folder: str, place: str) -> None:
    """Give this container files of its own: what it writes there is nobody else's."""
    import shutil

    shutil.copytree(folder, place, dirs_exist_ok=True)


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, name)
        _soft, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


# --- the network, by the requests of netdevice(7)

_SIOCADDRT = 0x890B
_SIOCSIFFLAGS = 0x8914
_SIOCGIFADDR, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8915, 0x8916, 0x891C
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_RTF_UP, _RTF_GATEWAY, _RTF_HOST, _RTF_REJECT = 0x1, 0x2, 0x4, 0x200
PATIENCE = 5.0  # seconds


def _start_interface(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x8x", name.encode(), _IFF_UP | _IFF_RUNNING)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)


def _configure_network(
    name: str, address: str, netmask: str, gateway: str, refused: list[tuple[str, str]], open_to: list[str]
) -> None:
    """Give our interface its address and a route for everything, and refuse some networks but a few hosts.

    Without an address somebody else is about to give the interface one, and the route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if address:
            for kind, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, netmask)):
                fcntl.ioctl(sock, kind, struct.pack("16s16s8x", name.encode(), _address(value)))
            _start_interface(name)
            _route(sock, "0.0.0.0", "0.0.0.0", _RTF_UP | _RTF_GATEWAY, gateway)  # noqa: S104 - everything
        else:
            _await_address(sock, name)
        for network, mask in refused:
            _route(sock, network, mask, _RTF_UP | _RTF_REJECT)
        for host in open_to:
            _route(sock, host, "255.255.255.255", _RTF_UP | _RTF_GATEWAY | _RTF_HOST, gateway)


def _await_address(sock: socket.socket, name: str) -> None:
    """Return when somebody else has given an interface its address."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.ioctl(sock, _SIOCGIFADDR, struct.pack("16s24x", name.encode()))
            return
        except OSError:
            if time.monotonic() > until:
                raise OSError(f"the network is not there after {PATIENCE:g} s") from None
        time.sleep(0.002)


def _route(sock: socket.socket, network: str, mask: str, flags: int, gateway: str = "0.0.0.0") -> None:  # noqa: S104
    # struct rtentry: pad, destination, gateway, mask, flags; the rest is not for us.
    entry = struct.pack(
        "@L16s16s16sHhLPhPLLH",
        0, _address(network), _address(gateway), _address(mask), flags, 0, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    fcntl.ioctl(sock, _SIOCADDRT, entry + bytes(16))


def _address(text: str) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))
