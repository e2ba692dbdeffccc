"""What the gateway decides: functions of values."""

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence

from tidemill._log_entries import LogEntry

MAX_WAIT = 300.0  # seconds that one request may wait for a result
MAX_KEY = 255  # characters of an Idempotency-Key

_PREFERENCE = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:;.*)?", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

STATUSES = {  # of the errors that services answer with, by code
    "auth": 401,
    "permission_denied": 403,
    "not_found": 404,
    "already_exists": 409,
    "conflict": 409,
    "invalid": 422,
    "version": 502,
    "resource_exhausted": 429,
    "service": 503,
    "internal": 500,
    "unimplemented": 501,
    "data_loss": 500,
    "image_build": 424,
    "timeout": 504,
}


def credentials(authorization: str) -> tuple[str, str] | None:
    """Return the id and the secret of an `Authorization` header, or None where it holds none.

    `Bearer <id>:<secret>`, or Basic with the id as the user.
    """
    scheme, _, rest = authorization.strip().partition(" ")
    pair = rest.strip()
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(pair, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    elif scheme.lower() != "bearer":
        return None
    token_id, colon, secret = pair.partition(":")
    return (token_id, secret) if colon and token_id and secret else None


def seconds_to_wait(prefer: Iterable[str], wait: float | None) -> float:
    """Return for how long a request wants to wait: `?wait=`, else `Prefer: wait=N`; 0 without either."""
    if wait is not None:
        return min(wait, MAX_WAIT)
    for header in prefer:
        for preference in header.split(","):
            if found := _PREFERENCE.fullmatch(preference):
                return min(float(found[1]), MAX_WAIT)
    return 0.0


def claim_key(workspace: str, function_id: str, key: str) -> str:
    """Return where it is stored which call an idempotency key stands for."""
    named = f"{workspace}\0{function_id}\0{key}"
    return f"ik-{hashlib.sha256(named.encode()).hexdigest()[:40]}"


def etag(body: bytes) -> str:
    """Return the entity tag of a representation."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def matches(header: str, tag: str, *, weak: bool) -> bool:
    """Tell whether an If-Match or (`weak`) If-None-Match header names this entity tag."""
    if header.strip() == "*":
        return True
    named = [each.strip() for each in header.split(",")]
    return tag in ([each.removeprefix("W/") for each in named] if weak else named)


def bounded(entries: Sequence[LogEntry], size: int, *, last: bool) -> tuple[Sequence[LogEntry], bool]:
    """Return the first or the `last` lines that are together at most so large, and whether some are left."""
    held, total = 0, 0
    for entry in reversed(entries) if last else entries:
        total += len(entry.message)
        if total > size:
            break
        held += 1
    kept = entries[len(entries) - held :] if last else entries[:held]
    return kept, held < len(entries)


def request_id(given: str) -> str:
    """Return the id that a request came with, if it is one that can be shown and logged, else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def next_link(path: str, query: Iterable[tuple[str, str]], cursor: str) -> str:
    """Return the Link header that leads to the next page of a list."""
    from urllib.parse import urlencode

    pairs = [(name, value) for name, value in query if name != "cursor"]
    return f'<{path}?{urlencode([*pairs, ("cursor", cursor)])}>; rel="next"'
