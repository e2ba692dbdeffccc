"""Processes: who descends from whom, and their end.

On Linux a *subreaper* becomes the parent of every descendant whose own parent ended, whatever session or
process group it put itself into, so nothing can slip away from whoever kills and reaps until no child is
left. Elsewhere there is no subreaper: the descendants that can be seen are killed, with the groups that
they lead, and a process that has detached itself twice over escapes.
"""

import os
import signal
import sys
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_PAUSE = 0.05  # seconds between two rounds of killing
_LONGEST_KILL = 10.0  # seconds

if sys.platform == "linux":
    import ctypes

    _libc = ctypes.CDLL(None, use_errno=True)
    _held = ctypes.PyDLL(None, use_errno=True)  # its functions keep the interpreter's lock


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process; return whether this system can do so."""
    return sys.platform == "linux" and bool(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def fork_for_init(*, has_user_code: bool) -> int:
    """Fork a process that runs nothing but init, or that only forks it; this one has a single thread.

    Nothing is called after it of what makes locks, threads and random numbers those of a copy. A runner
    needs that, and has it from its own fork. Here it would touch, and so copy, half a megabyte of what the
    processes share. What user code has registered is called: where that ends a fork, it ends this one.
    """
    if has_user_code or sys.platform != "linux":
        return os.fork()
    pid = int(_held.fork())
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def die_with(parent: int) -> None:
    """Have this process killed when `parent`, which forked it, ends. Elsewhere than on Linux, do nothing."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the kernel knew
            os._exit(1)


def descendants(root: int, spare: "frozenset[int] | set[int]" = frozenset()) -> list[int]:
    """Return the processes that descend from `root`, parents before their children.

    Those in `spare`, and what descends from them, are left out.
    """
    children: dict[int, list[int]] = {}
    for pid, parent in _table():
        if pid not in spare:
            children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found.extend(children.pop(pid, ()))
    return found[1:]


def reap() -> dict[int, int]:
    """Collect the children that have ended: exit statuses by pid, negative for signals."""
    ended: dict[int, int] = {}
    _reap_into(ended)
    return ended


def kill_descendants(spare: "frozenset[int] | set[int]" = frozenset()) -> dict[int, int]:
    """SIGKILL every descendant of this process, round after round, until none is left; reap them.

    `spare` are children to leave alone, with all that descends from them. Returns exit statuses by pid.
    Gives up after ten seconds on what the kernel does not let go of.
    """
    ended: dict[int, int] = {}
    pause, until = 0.0005, time.monotonic() + _LONGEST_KILL
    while _reap_into(ended) and time.monotonic() < until:
        left = descendants(os.getpid(), spare)
        if not left:
            break
        for pid in left:
            _kill(pid)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return ended


def kill_session(leader: int) -> None:
    """SIGKILL everything that is in the session of this leader or descends from it, dead or alive."""
    ours = set(descendants(leader))
    for pid, _parent in _table():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                ours.add(pid)
    for pid in ours:
        _kill(pid)


def _reap_into(ended: dict[int, int]) -> bool:
    """Collect the children that have ended; return whether there are others."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not pid:
            return True
        ended[pid] = os.waitstatus_to_exitcode(status)


def _kill(pid: int) -> None:
    try:
        if sys.platform != "linux" and os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it is gone, or it became another user: its parent's death makes it ours in the next round


def _table() -> "list[tuple[int, int]]":
    """Return (pid, parent) of every process that can be seen."""
    if sys.platform != "linux":
        return _table_from_ps()
    table = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs milliseconds at start
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    # The command's name, in brackets, may hold anything; after it: state, parent.
                    table.append((int(name), int(file.read().rpartition(b")")[2].split()[1])))
            except (OSError, IndexError):
                continue  # it ended meanwhile
    return table


def _table_from_ps() -> "list[tuple[int, int]]":
    import subprocess

    lines = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, check=False).stdout.splitlines()
    return [(int(pid), int(parent)) for pid, parent in (line.split() for line in lines)]
