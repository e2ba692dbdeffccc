"""The keeper: sees to it that nothing of a stack outlives its supervisor, however that ends.

`python -m tidemill_local.keeper FOLDER keep|remove` holds the end of a pipe whose other end only the
supervisor has. When the supervisor is gone, it ends every process of the stack with all its descendants,
and removes the folder of a temporary one. The supervisor's own orderly end takes the same way, with
nothing left to kill: what is needed in an emergency works every day.

A process belongs to the stack if its environment says so (`TIDEMILL_STACK`), or if it descends from one
that does. PostgreSQL writes its titles over its environment and is known by the folder it works in.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psutil import Process

MARK = "TIDEMILL_STACK"
_ROUNDS = 20  # of looking for what was started while the last round was being stopped
_PATIENCE = 10.0  # seconds for killed processes to be gone


def main(folder: str, then: str) -> None:
    """Wait for the supervisor's end, then clean up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(sys.stdin.fileno(), 4096):
        pass
    end_processes(Path(folder))
    if then == "remove":
        shutil.rmtree(folder, ignore_errors=True)


def end_processes(folder: Path) -> int:
    """End every process of the stack in `folder`; return how many there were."""
    stopped: dict[int, Process] = {}
    for _ in range(_ROUNDS):
        # A stopped process starts no others: after a round that finds nothing new, all are known.
        found = {process.pid: process for process in _members(folder) if process.pid not in stopped}
        if not found:
            break
        for process in found.values():
            _signal(process, signal.SIGSTOP)
        stopped |= found
    for process in stopped.values():
        _signal(process, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while any(map(_is_alive, stopped.values())) and time.monotonic() < deadline:
        time.sleep(0.005)
    return len(stopped)


def _members(folder: Path) -> Iterator["Process"]:
    import psutil

    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and _belongs(process, folder):
                yield process
                yield from process.children(recursive=True)
        except psutil.Error:  # it ended, or is somebody else's
            continue


def _belongs(process: "Process", folder: Path) -> bool:
    if process.environ().get(MARK) == str(folder):
        return True
    return process.name().startswith("postgres") and Path(process.cwd()) == folder / "postgres" / "data"


def _is_alive(process: "Process") -> bool:
    """Return whether a process runs; one that is dead but not reaped does not."""
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal(process: "Process", number: int) -> None:
    import psutil

    try:
        process.send_signal(number)
    except psutil.Error:
        return


if __name__ == "__main__":
    main(*sys.argv[1:])
