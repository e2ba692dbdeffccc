"""Snapshots: a template with the user's code in it, for functions with `enable_memory_snapshot`.

    import the module ──> make the object ──> its hooks under `@enter(snap=True)` ──> look ──> fork, fork, ...
                                                                                        └── refused, and why

A container that is forked from it finds all of that done. What a fork would lose, or share with others that
are meant to be apart, cannot be in it: then there is no snapshot, and containers start as others do.
"""

import os
import stat
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import Any, NamedTuple

from tidemill._container import lifecycle, processes, targets
from tidemill._container.configuration import Configuration
from tidemill._container.targets import Program

_DESCRIPTORS = "/dev/fd"
_MAX_REASON = 500  # characters
_NOT_REOPENED = os.O_CREAT | os.O_EXCL | os.O_TRUNC


class Refused(Exception):
    """There can be no snapshot; its text says why. `final`: another try would end the same way."""

    def __init__(self, reason: str, *, final: bool = True) -> None:
        super().__init__(reason[:_MAX_REASON])
        self.final = final


class _Taken(NamedTuple):
    """What is in this process: the program, and the files that are open in it, by descriptor."""

    program: Program
    files: dict[int, int]  # flags


_taken: list[_Taken] = []  # one, once it is


def program() -> Program | None:
    """Return the program that this process holds already, its first hooks run; None without a snapshot."""
    return _taken[0].program if _taken else None


def take(configuration: Configuration, output: int) -> dict[str, float]:
    """Bring the user's code into this process, with its output going to a descriptor, which is closed.

    Returns the seconds of each phase.

    Raises:
        Refused: this process is not to be forked now.
    """
    own = [os.dup(1), os.dup(2)]
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in the order in which it is written
    before, native = set(_open()), _native_threads()
    try:
        loaded, phases = _load(configuration)
        files = _look(before, native)
    finally:
        for stream, fd in zip((1, 2), own, strict=True):
            os.dup2(fd, stream)
            os.close(fd)
    _taken.append(_Taken(loaded._replace(snap=()), files))
    return phases


def wake() -> None:
    """In a fork that is to be a container: share nothing with the others."""
    for taken in _taken:
        tempfile.tempdir = None  # the variable that names it has changed
        for fd, flags in taken.files.items():
            with suppress(OSError):
                _reopen(fd, flags)


def _load(configuration: Configuration) -> tuple[Program, dict[str, float]]:
    lifecycle.put_in_place(configuration, lambda: None, _no_terminal, lambda _inputs: None)
    began = time.perf_counter()
    try:
        loaded = targets.load(configuration)
        imported = time.perf_counter()
        for hook in loaded.snap:
            _finish(hook())
    except BaseException as error:
        # Without a snapshot it fails once more, and is told to those who called.
        raise Refused(f"{type(error).__name__}: {error}", final=False) from error
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
    return loaded, {"import": imported - began, "enter": time.perf_counter() - imported}


def _finish(awaited: Any) -> None:
    """Await what an async hook returned, on a loop that does not outlive it."""
    if hasattr(awaited, "__await__"):
        import asyncio

        async def finish() -> None:
            await awaited

        asyncio.run(finish())


def _no_terminal() -> None:
    from tidemill.exception import InvalidError

    raise InvalidError("interact() is for functions, not for what runs before a snapshot")


# --- what must not be there


def _look(before: set[int], native: int) -> dict[int, int]:
    """Return the files that user code has open, with their flags; refuse what a fork would break."""
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        raise Refused(f"threads run that a copy would not have: {', '.join(others)}")
    processes.reap()
    if processes.descendants(os.getpid()):
        raise Refused("processes run that it has started")
    if _native_threads() > native and _has_openmp():
        raise Refused("a library runs threads of its own (OpenMP), which a copy would wait for in vain")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise Refused("CUDA is initialised")
    return {fd: flags for fd in _open() if fd not in before and (flags := _flags(fd)) is not None}


def _open() -> list[int]:
    """Return the descriptors that are open."""
    found = []
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - pathlib costs milliseconds
        with suppress(OSError):  # the one by which this was listed
            os.fstat(int(name))
            found.append(int(name))
    return found


def _flags(fd: int) -> int | None:
    """Return the flags of an open file that has a position, None for what can be shared; refuse the rest."""
    import fcntl

    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fcntl.fcntl(fd, fcntl.F_GETFL)
    if stat.S_ISDIR(mode) or (stat.S_ISCHR(mode) and not _is_gpu(fd)):
        return None
    if stat.S_ISCHR(mode):
        raise Refused("CUDA is initialised")
    if stat.S_ISSOCK(mode):
        raise Refused("a connection is open, which copies cannot share")
    if stat.S_ISFIFO(mode):
        raise Refused("a pipe is open, which copies cannot share")
    raise Refused("an event loop, or another thing of the kernel's, is open, which copies cannot share")


def _is_gpu(fd: int) -> bool:
    with suppress(OSError):
        return os.readlink(f"{_DESCRIPTORS}/{fd}").startswith("/dev/nvidia")  # noqa: PTH115
    return False


def _reopen(fd: int, flags: int) -> None:
    """Give a file a position of its own."""
    position = os.lseek(fd, 0, os.SEEK_CUR)
    again = os.open(f"{_DESCRIPTORS}/{fd}", flags & ~_NOT_REOPENED)
    os.lseek(again, position, os.SEEK_SET)
    os.dup2(again, fd, inheritable=os.get_inheritable(fd))
    os.close(again)


def _native_threads() -> int:
    with suppress(OSError):
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208
    return 0


def _has_openmp() -> bool:
    """Whether GNU's OpenMP is here: its threads do not survive a fork, and it does not notice."""
    try:
        with open("/proc/self/maps", "rb") as file:  # noqa: PTH123
            return b"libgomp" in file.read()
    except OSError:
        return False


def memory() -> int:
    """Return the bytes that this process has for itself; 0 where that is not told."""
    size = 0
    with suppress(OSError), open("/proc/self/smaps_rollup", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith((b"Private_Dirty", b"Private_Clean")):
                size += int(line.split()[1]) << 10
    return size
