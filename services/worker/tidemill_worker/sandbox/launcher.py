"""Starts bubblewrap inside ids that own nothing; a program of its own, which becomes bubblewrap.

    python -I -S launcher.py <layer> <descriptor of the plan>
    python -I -S launcher.py <layer> --remove <ids> <folder that containers wrote to>
    python -I -S launcher.py <layer> --measure <ids>        is told such folders in lines; see `measure`

    root                              an ordinary user
    │                                 ├── user namespace W, of which it is root: its own id and, with
    │                                 │   newuidmap, those that /etc/subuid grants it
    └────────────────┬────────────────┘
    private mount namespace: the template's root is put together under /tmp. Nobody else sees it, and it
                     │       is gone when the last process in it is, however that ends
    user namespace R: ids 0-65535 there are ids here that own nothing. What was mounted before is locked
                     │
    bubblewrap, which brings pid, ipc, uts and network namespaces, /proc and /dev

Bubblewrap started by root itself would be no sandbox: it would keep root's id.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

from tidemill._container import syscalls
from tidemill._container.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
)

STAGE = "/tmp"  # noqa: S108 - it is covered, in a mount namespace of our own
ROOT = f"{STAGE}/root"
HOLD = f"{STAGE}/hold"
IDS = 65536

# What a mount had stays with its bind: a user namespace may not take it off.
_KEPT = {os.ST_RDONLY: MS_RDONLY, os.ST_NOSUID: MS_NOSUID, os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: MS_NOEXEC}
_KEPT_TIMES = {os.ST_NOATIME: 1024, os.ST_NODIRATIME: 2048, os.ST_RELATIME: 1 << 21}


def main(plan: dict[str, Any]) -> None:
    """Become bubblewrap with what the plan says inside."""
    syscalls.die_with_parent(signal.SIGKILL)
    own = _Ids.of(plan["ids"])
    own.enter_outer()
    syscalls.unshare(syscalls.NEWNS)
    syscalls.mount("", "/", flags=MS_REC | MS_PRIVATE)
    _build(plan, own)
    own.enter_inner()
    arguments = _arguments(plan)
    os.execve(plan["bubblewrap"], ["bwrap", "--args", str(arguments), *plan["command"]], {})  # noqa: S606 - that is its purpose


def remove(ids: dict[str, int], path: str) -> None:
    """Remove a tree that containers' ids own, as root of the namespace that maps them."""
    _Ids.of(ids).enter_outer()
    shutil.rmtree(path, ignore_errors=True)


def measure(ids: dict[str, int]) -> None:
    """Say how much is in trees that containers' ids own, as root of the namespace that maps them.

    For each it tells the bytes, and the seconds of processor time that it took to count them.
    """
    syscalls.die_with_parent(signal.SIGKILL)
    _Ids.of(ids).enter_outer()
    for line in sys.stdin:
        began = time.process_time()
        used = size(line.rstrip())
        sys.stdout.write(f"{used} {time.process_time() - began}\n")
        sys.stdout.flush()


def size(folder: str) -> int:
    """Return the bytes that a tree takes on its disk. What disappears meanwhile does not count."""
    total, left = 0, [folder]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except OSError:
            continue
    return total


class _Ids:
    """The maps of the two user namespaces.

    first: this machine's id that is root inside; 0 in an outer namespace's terms without one.
    """

    def __init__(self, first: int, count: int, subordinate: tuple[int, int] | None) -> None:
        self.first = first
        self.count = count
        self._subordinate = subordinate

    @classmethod
    def of(cls, ids: dict[str, int]) -> "_Ids":
        if os.getuid() == 0:
            return cls(ids["first"], IDS, None)
        if ids["first"]:
            return cls(1, IDS, (ids["first"], ids["first_group"]))
        return cls(0, 1, None)

    def enter_outer(self) -> None:
        """As an ordinary user: become root of a namespace, in which mounting is allowed."""
        uid, gid = os.getuid(), os.getgid()
        if uid == 0:
            return
        if self._subordinate is None:
            syscalls.unshare(syscalls.NEWUSER)
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"0 {uid} 1")
            _write("/proc/self/gid_map", f"0 {gid} 1")
            return
        first, first_group = self._subordinate

        def write(pid: int) -> None:
            for program, mine, start in (("newuidmap", uid, first), ("newgidmap", gid, first_group)):
                subprocess.run(
                    [program, *map(str, (pid, 0, mine, 1, 1, start, IDS))], check=True, capture_output=True
                )

        _unshare_user(write)
        _become_root()

    def enter_inner(self) -> None:
        """Leave every id that owns anything."""

        def write(pid: int) -> None:
            if self.count == 1:
                _write(f"/proc/{pid}/setgroups", "deny")
            for kind in ("uid_map", "gid_map"):
                _write(f"/proc/{pid}/{kind}", f"0 {self.first} {self.count}")

        _unshare_user(write)
        if self.count > 1:
            _become_root()


def _unshare_user(write_maps: "Any") -> None:
    """Enter a new user namespace whose maps a child writes that stays outside."""
    parent = os.getpid()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        try:
            write_maps(parent)
        except BaseException as error:
            os.write(2, f"the ids of containers cannot be mapped: {_said(error)}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(reading)
    syscalls.unshare(syscalls.NEWUSER)
    os.close(writing)
    if os.waitpid(child, 0)[1]:
        sys.exit(1)


def _said(error: BaseException) -> str:
    return error.stderr.decode() if isinstance(error, subprocess.CalledProcessError) else str(error)


def _become_root() -> None:
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:  # noqa: PTH123
        file.write(text)


# --- what the template sees


def _build(plan: dict[str, Any], own: _Ids) -> None:
    """Put the root and what is held beside it together, in memory and out of binds."""
    sources = {path: os.open(path, os.O_PATH) for path in _sources(plan)}
    syscalls.mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for name in ("root", "hold", "hold/top", "hold/none", "hold/lower", "hold/root", "hold/scratch"):
        _make_folder(f"{STAGE}/{name}", own)
    _build_top(plan, own, sources)
    layers = [f"{HOLD}/top"]
    for number, layer in enumerate(plan["layers"]):
        layers.append(f"{HOLD}/lower/{number}")
        _make_folder(layers[-1], own)
        _bind(sources[layer], layers[-1], read_only=True)
    options = f"lowerdir={':'.join(layers)}:{HOLD}/none,userxattr"
    syscalls.mount("overlay", ROOT, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, options)
    for source, target in plan["binds"]:
        _bind(sources[source], ROOT + target, read_only=True)
    _bind(sources[plan["scratch"]], f"{HOLD}/scratch", read_only=False)
    os.chown(f"{HOLD}/scratch", own.first, own.first)
    with open(f"{HOLD}/plan", "wb") as file:  # noqa: PTH123
        file.write(bytes.fromhex(plan["inside"]))
    for descriptor in sources.values():
        os.close(descriptor)


def _sources(plan: dict[str, Any]) -> set[str]:
    return {*plan["layers"], *(source for source, _target in plan["binds"]), plan["scratch"]}


def _build_top(plan: dict[str, Any], own: _Ids, sources: dict[str, int]) -> None:
    """Make the uppermost layer: folders, links, our own /etc, and places to bind to."""
    top = f"{HOLD}/top"
    for path, mode in plan["folders"]:
        _make_folder(top + path, own, mode)
    for path, target in plan["links"]:
        os.symlink(target, top + path)  # noqa: PTH211
    for path, text in plan["files"]:
        _make_folder(os.path.dirname(top + path), own)  # noqa: PTH120
        _write(top + path, text)
        os.chown(top + path, own.first, own.first)
    for source, target in plan["binds"]:
        if stat.S_ISDIR(os.fstat(sources[source]).st_mode):
            _make_folder(top + target, own)
        else:
            _make_folder(os.path.dirname(top + target), own)  # noqa: PTH120
            _write(top + target, "")


def _make_folder(path: str, own: _Ids, mode: int = 0o755) -> None:
    """Make a folder, and those above it, for the root of the container."""
    if not os.path.isdir(path):  # noqa: PTH112
        _make_folder(os.path.dirname(path), own)  # noqa: PTH120
        os.mkdir(path)  # noqa: PTH102
        os.chown(path, own.first, own.first)
    os.chmod(path, mode)  # noqa: PTH101


def _bind(source: int, target: str, *, read_only: bool) -> None:
    syscalls.mount(f"/proc/self/fd/{source}", target, flags=MS_BIND)
    flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0)
    has = os.statvfs(target).f_flag
    for table in (_KEPT, _KEPT_TIMES):
        for flag, kept in table.items():
            if has & flag:
                flags |= kept
    syscalls.mount("", target, flags=flags)


# --- bubblewrap


def _arguments(plan: dict[str, Any]) -> int:
    """Return a descriptor from which bubblewrap reads its arguments: nobody sees variables that way."""
    options = [
        "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net",
        "--cap-add", "ALL",
        "--bind", ROOT, "/",
        "--bind", HOLD, "/.tidemill",
        "--dev", "/dev",
        "--proc", "/proc",
        "--chdir", "/",
        "--clearenv",
    ]  # fmt: skip
    for node in plan["devices"]:
        options += ["--dev-bind", node, node]
    for name, value in plan["environment"].items():
        options += ["--setenv", name, value]
    if plan["program"]:
        program = _memory(bytes.fromhex(plan["program"]))
        options += ["--seccomp", str(program)]
    return _memory("\0".join(options).encode() + b"\0")


def _memory(data: bytes) -> int:
    descriptor = os.memfd_create("tidemill")
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.set_inheritable(descriptor, True)
    return descriptor


if __name__ == "__main__" and sys.argv[2] == "--remove":
    remove(json.loads(sys.argv[3]), sys.argv[4])
elif __name__ == "__main__" and sys.argv[2] == "--measure":
    measure(json.loads(sys.argv[3]))
elif __name__ == "__main__":
    with open(int(sys.argv[2]), "rb") as file:  # noqa: PTH123
        told = json.loads(file.read())
    try:
        main(told)
    except OSError as problem:
        sys.exit(f"no sandbox: {problem}")
