"""Run a program as root of a user namespace of its own: root inside, nobody on the host. Run as a script.

    python -I -S jail.py <first id> <count> <source>=<target>... -- <path of a program> <argument>...

Ids 0 to count-1 inside are first id to first id+count-1 outside. The program has its own process ids,
mounts, IPC and host name, and the host's network. Each `source` is seen at `/mnt/<target>`, so that a
folder below a home which only its owner may enter can be reached; `/mnt/own` is memory that only the jail
sees. Everything in the jail ends with the process that started it. It needs a root that may make user
namespaces.
"""

# ruff: noqa: PTH102, PTH103, PTH112, PTH120, PTH123
import ctypes
import os
import signal
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 4096, 16384, 1 << 18, 2, 4, 8
_SET_DEATH_SIGNAL = 1

ROOM = "/mnt"  # where the sources are seen
OWN = f"{ROOM}/own"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    told = [text.encode() for text in (source, target, kind)]
    _check(_libc.mount(*told, ctypes.c_ulong(flags), options.encode()), f"mount on {target}")


def _die_with_parent() -> None:
    _check(_libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0), "prctl")


def _furnish(binds: list[str]) -> None:
    """Make the sources visible where everybody may go."""
    _unshare(NEWNS)
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", ROOM, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    os.mkdir(OWN)
    for bind in binds:
        source, _, target = bind.partition("=")
        path = f"{ROOM}/{target}"
        if os.path.isdir(source):
            os.makedirs(path)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "w").close()
        _mount(source, path, "", _MS_BIND | _MS_REC)


def _enter(first: int, count: int) -> None:
    """Become root of a new user namespace, in which the other namespaces are made."""
    ready, go = os.pipe(), os.pipe()
    owner = os.getpid()
    mapper = os.fork()
    if not mapper:  # it keeps the rights that this process is about to give up
        _die_with_parent()
        os.read(ready[0], 1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{owner}/{name}", "w") as file:
                file.write(f"0 {first} {count}")
        os.write(go[1], b"x")
        os._exit(0)
    _unshare(NEWUSER)
    os.write(ready[1], b"x")
    if os.waitpid(mapper, 0)[1]:
        raise OSError("the ids of the user namespace cannot be mapped")
    os.read(go[0], 1)
    for fd in (*ready, *go):
        os.close(fd)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _unshare(NEWNS | NEWPID | NEWIPC | NEWUTS)


def _run(program: list[str]) -> int:
    """Run the program as the first process of its namespace; return its exit status."""
    child = os.fork()
    if not child:
        _die_with_parent()
        _mount("tmpfs", OWN, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=700")
        _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        os.chdir("/")
        os.execv(program[0], program)  # noqa: S606 - a search would import what cannot be reached any more
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(arguments: list[str]) -> int:
    """Do what the arguments say."""
    split = arguments.index("--")
    first, count, *binds = arguments[:split]
    _die_with_parent()
    _furnish(binds)
    _enter(int(first), int(count))
    _die_with_parent()  # a change of ids takes it back
    status = _run(arguments[split + 1 :])
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
