"""The supervisor: one process that starts a stack, starts again what dies, and ends it.

    python -m tidemill_local temporary     tells the stack on stdout, ends when stdin does
    python -m tidemill_local up            the same in $TIDEMILL_HOME, ends when it is told to

SIGTERM and SIGINT end a stack in order; a second one ends it at once. When the supervisor itself is
killed, its keeper ends what it leaves behind.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tidemill.exception import Error
from tidemill_local import folders as places
from tidemill_local import keeper
from tidemill_local.decisions import deaths_in_a_row, restart_delay
from tidemill_local.folders import Folders
from tidemill_local.parts import Part
from tidemill_local.stack import Stack

_log = logging.getLogger("tidemill_local")

KEEPER_TIMEOUT = 15.0  # seconds for the keeper to find that nothing is left


def main(arguments: list[str]) -> int:
    """Run the stack that the command line asks for; return the exit status."""
    if arguments == ["temporary"]:
        return run(places.temporary())
    if arguments == ["up"]:
        return run(places.lasting())
    print("usage: python -m tidemill_local temporary | up", file=sys.stderr)  # noqa: T201
    return 2


def run(folders: Folders) -> int:
    """Run the stack in `folders` until it is told to end; return the exit status."""
    try:
        folders.make()
        lock = places.lock(folders)
    except (Error, OSError) as error:
        _tell_error(error)
        return 1
    if folders.is_told:
        keeper.end_processes(folders.root)  # of a stack whose supervisor and keeper were both killed
    guard = _Keeper(folders, lock)
    _keep_log(folders.logs / "supervisor.log")
    # From here on: what is started now belongs to the stack, the keeper started before does not.
    os.environ[keeper.MARK] = str(folders.root)
    try:
        return asyncio.run(_Supervisor(folders, Stack(folders), guard).main())
    except Exception as error:  # of a temporary stack nobody will read the log
        _log.exception("the supervisor failed")
        _tell_error(error)
        return 1
    finally:
        folders.untell()
        guard.end()


class _Keeper:
    """The keeper's process."""

    def __init__(self, folders: Folders, lock: int) -> None:
        self._folders = folders
        self._lock = lock
        self._process = self._spawn()

    def check(self) -> None:
        """Start another keeper if this one is gone."""
        if self._process.poll() is not None:
            _log.warning("the keeper ended with status %s; starting another", self._process.returncode)
            self._process = self._spawn()

    def end(self) -> None:
        """Let it clean up, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KEEPER_TIMEOUT)

    def _spawn(self) -> subprocess.Popen[bytes]:
        then = "remove" if self._folders.temporary else "keep"
        environment = {name: value for name, value in os.environ.items() if name != keeper.MARK}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "tidemill_local.keeper", str(self._folders.root), then],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=(self._lock,),  # the folder is taken for as long as anything may be alive
            start_new_session=True,  # what is sent to the supervisor's group is not for it
        )


class _Supervisor:
    """One run of a stack."""

    def __init__(self, folders: Folders, stack: Stack, guard: _Keeper) -> None:
        self._folders = folders
        self._stack = stack
        self._guard = guard
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._child_ended = asyncio.Event()
        self._deaths: dict[str, int] = {}

    async def main(self) -> int:
        """Start, watch, stop; return the exit status."""
        self._listen()
        watching = asyncio.create_task(self._watch(), name="watch")
        try:
            if not await self._started():
                return 1
            await self._stopping.wait()
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            await self._stop()
        return 0

    async def _started(self) -> bool:
        """Start the stack and tell that it serves; return False if it does not, or is not wanted any more."""
        begun = time.monotonic()
        starting = asyncio.create_task(self._stack.start(), name="start")
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (starting, stopping):
            task.cancel()
        await asyncio.wait({starting, stopping})
        if starting.cancelled():
            return False
        if (error := starting.exception()) is not None:
            _log.error("the stack cannot be started: %s", error)
            _tell_error(error)
            return False
        _log.info("the stack serves after %.2f s", time.monotonic() - begun)
        self._tell()
        _tell_line(self._stack.describe().to_json())
        return True

    async def _watch(self) -> None:
        """Start again what ends by itself."""
        async with asyncio.TaskGroup() as restarts:
            while True:
                await self._child_ended.wait()
                self._child_ended.clear()
                self._guard.check()
                for part in self._stack.parts:
                    if self._stack.states[part.name] == "serving" and part.returncode is not None:
                        self._stack.states[part.name] = "restarting"
                        restarts.create_task(self._restart(part), name=f"restart {part.name}")

    async def _restart(self, part: Part) -> None:
        """Start a part that ended, again and again until it serves."""
        served = self._stack.served(part)
        while True:
            deaths = self._deaths[part.name] = deaths_in_a_row(self._deaths.get(part.name, 0), served)
            delay = restart_delay(deaths)
            _log.warning(
                "%s ended with status %s; starting it again in %.1f s", part.name, part.returncode, delay
            )
            self._tell()
            await asyncio.sleep(delay)
            try:
                await self._stack.restart(part)
            except (Error, OSError) as error:
                _log.error("%s cannot be started: %s", part.name, error)
                served = 0.0
            else:
                self._tell()
                self._child_ended.set()  # it may have ended before anybody looked
                return

    async def _stop(self) -> None:
        """End the stack in order, or at once if somebody cannot wait."""
        _log.info("stopping")
        self._tell()
        stopping = asyncio.create_task(self._stack.stop(), name="stop")
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, hurry):
            task.cancel()
        await asyncio.wait({stopping, hurry})
        self._stack.kill()
        _log.info("stopped")

    def _tell(self) -> None:
        """Keep what clients read about a stack that stays up to date."""
        if not self._folders.temporary:
            self._folders.tell(self._stack.describe())

    def _listen(self) -> None:
        """React to signals, to the ends of children and, for a temporary stack, to the end of its client."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._child_ended.set)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._end)
        if self._folders.temporary:
            try:
                loop.add_reader(0, self._on_input)
            except PermissionError:  # a file or /dev/null: there is no client that could end
                self._stopping.set()

    def _on_input(self) -> None:
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            self._stopping.set()

    def _end(self) -> None:
        """End the stack; the second time, at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()


def _keep_log(file: Path) -> None:
    """Send this process's log, and whatever else it says, to a file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _tell_error(error: BaseException) -> None:
    _tell_line(json.dumps({"error": str(error) or repr(error), "hint": getattr(error, "hint", "")}))


def _tell_line(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(1, f"{line}\n".encode())
        # Whoever started the stack may wait for the end of what it tells.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
