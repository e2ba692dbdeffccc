"""The folders of a stack: whose they are, and what lies in them.

lock                held by the supervisor, and by its keeper, for as long as anything may be alive
stack.json          how to reach the stack and what it consists of (0600)
credentials.json    passwords, keys and first tokens, kept from start to start (0600)
gateway.port        where the gateway listens, the same at every start
secrets.key         what the stack's secrets are encrypted with (0600)
nats/ postgres/     the data of the two servers
logs/               one file for each part, and the supervisor's own
"""

import base64
import fcntl
import os
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tidemill import _stack
from tidemill.exception import ConflictError
from tidemill_local import credentials
from tidemill_local.credentials import Credentials

LOCK_PATIENCE = 1.0  # seconds: those who only look whether a stack runs hold the lock for an instant


@dataclass(frozen=True, slots=True)
class Folders:
    """The folder of one stack. A temporary one is removed with its stack."""

    root: Path
    temporary: bool

    @property
    def nats(self) -> Path:
        """Where NATS lives."""
        return self.root / "nats"

    @property
    def postgres(self) -> Path:
        """Where PostgreSQL lives."""
        return self.root / "postgres"

    @property
    def logs(self) -> Path:
        """Where the logs are."""
        return self.root / "logs"

    @property
    def worker(self) -> Path:
        """Where the worker keeps images. Every stack of a user shares them, temporary ones too."""
        return _stack.home() / "worker"

    def make(self) -> None:
        """Make what is missing, for nobody else to read."""
        for folder in (self.root, self.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)

    def credentials(self) -> Credentials:
        """Return who may connect, the same at every start."""
        file = self.root / "credentials.json"
        kept = credentials.load(file)
        if kept is None:
            kept = credentials.generate()
            write_private(file, credentials.dump(kept))
        return kept

    def secrets_key(self) -> Path:
        """Return the file with the key for secrets, the same at every start. It is made once, never again.

        Without it what was stored cannot be read, so it is not replaced whatever it holds.
        """
        file = self.root / "secrets.key"
        if not file.exists():
            write_private(file, base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
        return file

    def tell(self, info: _stack.StackInfo) -> None:
        """Write how to reach the stack, for clients to find."""
        write_private(self.root / "stack.json", info.to_json())

    @property
    def is_told(self) -> bool:
        """Whether `tell` wrote something that nobody removed."""
        return (self.root / "stack.json").exists()

    def untell(self) -> None:
        """Remove what `tell` wrote."""
        (self.root / "stack.json").unlink(missing_ok=True)


def temporary() -> Folders:
    """Return new folders for a temporary stack. The name is short: addresses of Unix sockets are."""
    return Folders(Path(tempfile.mkdtemp(prefix="tidemill-")).resolve(), temporary=True)


def lasting() -> Folders:
    """Return the folders of the stack that stays."""
    return Folders(_stack.home(), temporary=False)


def lock(folders: Folders) -> int:
    """Take the folders for this process; return the descriptor that holds them.

    Raises `ConflictError` when another stack lives there.
    """
    descriptor = os.open(folders.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                message = f"a stack is already running in {folders.root}"
                raise ConflictError(
                    message, hint="see `tidemill status`, or end it with `tidemill down`"
                ) from None
        time.sleep(0.01)


def write_private(file: Path, text: str) -> None:
    """Write a file that nobody else can read, whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    draft.replace(file)
