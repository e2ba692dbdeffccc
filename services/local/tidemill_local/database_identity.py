"""As whom PostgreSQL's programs run: they refuse to be root.

A process of root enters a user namespace in which its uid has another number: the files stay root's, so
nothing must be world-readable and no account is made. Where namespaces are not to be had (most container
engines), it becomes `nobody`, keeping the one capability to pass through root's folders.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522

Entry = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """How a child process becomes somebody whom PostgreSQL accepts, and who must own its files."""

    name: str
    enter: Entry | None = None
    owner: tuple[int, int] | None = None

    def entry(self, *, die_with_parent: bool = False) -> Entry | None:
        """Return what a new process runs before its program.

        With `die_with_parent` the process is told to shut down when the thread that made it ends, so
        that nothing survives a killed supervisor. Only Linux can, and only the main thread may ask.
        """
        ties = die_with_parent and sys.platform == "linux" and _in_main_thread()
        if not ties:
            return self.enter
        enter, prctl = self.enter, ctypes.CDLL(None).prctl

        def entered() -> None:
            if enter is not None:
                enter()
            prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)  # after `enter`: new credentials reset it

        return entered


def _has_name() -> bool:
    """Return whether this user has an account: initdb wants one, containers run without."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@cache
def identity(program: Path) -> Identity:
    """Return the identity for this process's children; `program` is a harmless one to try it with."""
    root = os.geteuid() == 0
    if not root and _has_name():
        return Identity("own")
    if sys.platform == "linux":
        inside = Identity("namespace", _namespace_entry())
        if _works(inside, program):
            return inside
    return nobody() if root else Identity("own")


def nobody() -> Identity:
    """Return the identity of the user `nobody`."""
    account = pwd.getpwnam("nobody")
    return Identity("nobody", _nobody_entry(account), (account.pw_uid, account.pw_gid))


def _works(candidate: Identity, program: Path) -> bool:
    try:
        subprocess.run(
            [program, "--version"], preexec_fn=candidate.enter, check=True, capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _namespace_entry() -> Entry:
    inside = pwd.getpwnam("nobody").pw_uid  # a number that has a name: initdb looks it up
    uid, gid = os.geteuid(), os.getegid()
    unshare = ctypes.CDLL(None, use_errno=True).unshare

    def enter() -> None:
        if unshare(_CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{inside} {uid} 1")
        _write("/proc/self/gid_map", f"{inside} {gid} 1")

    return enter


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY)
    os.write(file, text.encode())
    os.close(file)


def _nobody_entry(account: pwd.struct_passwd) -> Entry:
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    uid, gid = account.pw_uid, account.pw_gid

    def enter() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        if libc is not None:
            _keep_only(libc, _CAP_DAC_OVERRIDE)

    return enter


def _keep_only(libc: ctypes.CDLL, capability: int) -> None:
    """Reduce this process to one capability, and let the program it becomes have it too.

    Without that capability to begin with the process goes on with none: paths may be open to all.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable, twice
    if libc.capset(header, sets) == 0:
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)
