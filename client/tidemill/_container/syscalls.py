"""System calls of Linux that Python has no function for."""

import ctypes
import os
import sys

NEWNS = 0x00020000
NEWCGROUP = 0x02000000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

MNT_DETACH = 2

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION = 0x20080522  # 64 bits
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# The same numbers on all architectures, and their flags.
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_ATTR_NOSUID, _ATTR_NODEV = 2, 4
_AT_FDCWD = -100
_FROM_DESCRIPTOR = 4

if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount something; what it is says `kind`, and `flags` for binds and changes."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _check(result, f"mount {target}")


def open_mount(kind: str, source: str, flags: tuple[str, ...] = ()) -> int:
    """Return a descriptor of a mount that is nowhere yet, without set-user-id files and device nodes.

    It is gone with its last descriptor, unless it has been put somewhere by then.
    """
    context = _check(_libc.syscall(_FSOPEN, kind.encode(), _CLOEXEC), f"open {kind}")
    try:
        words = [
            (_SET_STRING, b"source", source.encode()),
            *((_SET_FLAG, flag.encode(), None) for flag in flags),
        ]
        for command, key, value in (*words, (_CREATE, None, None)):
            _check(_libc.syscall(_FSCONFIG, context, command, key, value, 0), f"mount {source}")
        attributes = _ATTR_NOSUID | _ATTR_NODEV
        return _check(_libc.syscall(_FSMOUNT, context, _CLOEXEC, attributes), f"mount {source}")
    finally:
        os.close(context)


def put_mount(descriptor: int, target: str) -> None:
    """Put a mount somewhere that `open_mount` has returned."""
    result = _libc.syscall(_MOVE_MOUNT, descriptor, b"", _AT_FDCWD, target.encode(), _FROM_DESCRIPTOR)
    _check(result, f"mount {target}")


def unmount(target: str) -> None:
    """Take a mount away as soon as nobody uses it."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root, and put the old one at `old`."""
    _check(_libc.syscall(_PIVOT_ROOT[os.uname().machine], new.encode(), old.encode()), "pivot_root")


def sethostname(name: str, namespace: int = -1) -> None:
    """Name this machine, or that of another namespace, which a descriptor is of."""
    if namespace >= 0:
        _sethostname_in(namespace, name)
        return
    _check(_libc.sethostname(name.encode(), len(name)), "sethostname")


def _sethostname_in(namespace: int, name: str) -> None:
    own = os.open("/proc/thread-self/ns/uts", os.O_RDONLY)
    try:
        _check(_libc.setns(namespace, NEWUTS), "setns")
        try:
            sethostname(name)
        finally:
            _check(_libc.setns(own, NEWUTS), "setns")
    finally:
        os.close(own)


def die_with_parent(signal: int) -> None:
    """Have this process sent a signal when the thread that started it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")


def drop_capabilities() -> None:
    """Give up every capability, for good, and for every program that is executed from here."""
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    number = 0
    while _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == 0:  # fails beyond the last one
        number += 1
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install_filter(program: bytes) -> None:
    """Have every system call from here on judged by a seccomp program."""
    described = _Program(len(program) // 8, program)
    result = _libc.prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0)
    _check(result, "seccomp")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
