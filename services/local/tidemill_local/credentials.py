"""Who may connect to a stack: generated once, kept in a private file."""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from tidemill._wire import ids
from tidemill_common import identities
from tidemill_local.broker import WORKSPACE

USERS = (*identities.SERVICE_USERS, identities.SYSTEM_USER)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Passwords of the services, the key that signs users, and the first tokens.

    The tokens are made in the registry when it starts: the owner's, and that of the stack's own worker.
    """

    passwords: dict[str, str]
    issuer: str
    issuer_seed: str
    member: str
    member_secret: str
    worker: str
    worker_secret: str

    def access(self) -> dict[str, object]:
        """Return the accounts and who is let into them, as the server is configured."""
        return identities.configuration(self.passwords, self.issuer)


def generate() -> Credentials:
    """Return new credentials."""
    from tidemill_registry import jwt

    seed = jwt.new_seed()
    return Credentials(
        {user: secrets.token_urlsafe(32) for user in USERS},
        jwt.Issuer(seed).public,
        seed,
        ids.new_token(WORKSPACE),
        secrets.token_urlsafe(32),
        ids.new("wg"),
        secrets.token_urlsafe(32),
    )


def load(file: Path) -> Credentials | None:
    """Return what a file holds; None where there is none that this version understands."""
    try:
        kept = Credentials(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return kept if kept.passwords.keys() == set(USERS) else None


def dump(credentials: Credentials) -> str:
    """Return credentials as the file holds them."""
    return json.dumps(asdict(credentials))
