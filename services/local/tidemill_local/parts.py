"""The parts of a stack: each is one process that can be started, watched and stopped."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from tidemill.exception import Error
from tidemill_local.broker import Broker
from tidemill_local.database import Database
from tidemill_local.database_identity import Identity

START_TIMEOUT = 60.0  # seconds for a service to serve
_TICK = 0.002  # seconds between looks at a process that ends


class PartError(Error):
    """A part of the stack could not be started."""


class Part(Protocol):
    """One process of a stack, whatever runs in it."""

    name: str

    @property
    def pid(self) -> int | None:
        """Its process; None while there is none."""

    @property
    def returncode(self) -> int | None:
        """How the process ended; None while it runs, or while there is none."""

    @property
    def address(self) -> str:
        """Where it answers. Known once it was started."""

    @property
    def log(self) -> Path:
        """The file that it writes its log to."""

    async def start(self) -> None:
        """Start the process and return when it serves. Raises `Error`."""

    async def stop(self) -> None:
        """End the process in order, or by force when that takes too long."""

    def kill(self) -> None:
        """End the process at once."""


class NatsPart:
    """NATS, as a part."""

    name = "nats"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.start, self.stop, self.kill = broker.start, broker.stop, broker.kill

    @property
    def pid(self) -> int | None:
        """The server's process."""
        return self._broker.pid

    @property
    def returncode(self) -> int | None:
        """How the server ended by itself."""
        return self._broker.returncode

    @property
    def address(self) -> str:
        """The URL without credentials."""
        return self._broker.url

    @property
    def log(self) -> Path:
        """The server's own log."""
        return self._broker.log


class PostgresPart:
    """PostgreSQL, as a part."""

    name = "postgres"

    def __init__(self, database: Database) -> None:
        self._database = database
        self.start, self.stop, self.kill = database.start, database.stop, database.kill

    @property
    def pid(self) -> int | None:
        """The server's process."""
        return self._database.pid

    @property
    def returncode(self) -> int | None:
        """How the server ended by itself."""
        return self._database.returncode

    @property
    def address(self) -> str:
        """The folder of its Unix socket: it listens nowhere else."""
        from urllib.parse import parse_qs, urlsplit

        return parse_qs(urlsplit(self._database.url).query)["host"][0]

    @property
    def log(self) -> Path:
        """The server's own log."""
        return self._database.log


class ServicePart:
    """One of Tidemill's services. It tells on a descriptor when it serves, and where.

    `environment` is asked at each start: what it names may have moved since the last one. `hint` says
    where there is more to read when it does not start. With `gate` it connects to NATS when that is set.
    """

    def __init__(
        self,
        name: str,
        environment: Callable[[], Mapping[str, str]],
        log: Path,
        stop_timeout: float,
        hint: str,
        gate: asyncio.Event | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.address = ""
        self._environment = environment
        self._stop_timeout = stop_timeout
        self._hint = hint
        self._gate = gate
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The service's process."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """How the process ended by itself."""
        return self._process.poll() if self._process else None

    async def start(self) -> None:
        """Start the process and return when it serves. Raises `PartError`."""
        reader, writer = os.pipe()
        try:
            try:
                gate = self._launch(writer)
            finally:
                os.close(writer)
            await self._open(gate)
            async with asyncio.timeout(START_TIMEOUT):
                self.address = json.loads(await _first_line(reader))["address"]
        except TimeoutError:
            raise self._failed(f"does not serve after {START_TIMEOUT:.0f} s") from None
        except ValueError:
            raise self._failed("ended at its start") from None
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(reader)

    async def stop(self) -> None:
        """Tell the service to drain, and wait for its end; kill it when that takes too long."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._stop_timeout
        while self._process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - not an event
            await asyncio.sleep(_TICK)
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _launch(self, ready: int) -> int:
        """Start the process; return the descriptor that is its gate."""
        inner, outer = os.pipe()
        try:
            self._process = self._spawn(ready, inner)
        except BaseException:
            os.close(outer)
            raise
        finally:
            os.close(inner)
        return outer

    async def _open(self, gate: int) -> None:
        """Let the process connect when it makes sense."""
        try:
            if self._gate is not None:
                await self._gate.wait()
        finally:
            os.close(gate)

    def _spawn(self, ready: int, gate: int) -> subprocess.Popen[bytes]:
        told = {"TIDEMILL_READY_FD": str(ready), "TIDEMILL_GATE_FD": str(gate)}
        environment = {**self._environment(), **told}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", f"tidemill_{self.name}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
                pass_fds=(ready, gate),
                start_new_session=True,  # a Ctrl-C at the terminal is for the supervisor
                preexec_fn=Identity("own").entry(die_with_parent=True),  # noqa: PLW1509  # it only calls prctl
            )

    def _failed(self, how: str) -> PartError:
        """End what is left of the process; return the error, with the last thing that it logged."""
        self.kill()
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return PartError(f"{self.name} {how}: {_said(lines[-1]) if lines else 'no word'}", hint=self._hint)


def _said(line: str) -> str:
    """Return what a line of a log says: of a structured one the message and its exception's last line."""
    try:
        record = json.loads(line)
        exception = str(record.get("exception", "")).strip(" +-|\n").rpartition("\n")[2]
        words = (record.get("msg"), record.get("error"), exception.strip(" +-|"))
    except (ValueError, AttributeError):
        return line
    return ": ".join(str(word) for word in words if word)


async def _first_line(descriptor: int) -> bytes:
    """Return what comes through a pipe until its first line or its end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    line = b""
    try:
        while not line.endswith(b"\n"):
            await readable.wait()
            readable.clear()
            piece = os.read(descriptor, 4096)
            if not piece:
                break
            line += piece
        return line
    finally:
        loop.remove_reader(descriptor)
