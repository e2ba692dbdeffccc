"""Limits of how often web functions and calls by REST may be asked for, and the tokens they are made of.

A limit is a token bucket: `rate` tokens come in each second until there are `burst`, and every request takes
one. A workspace always has one; an app and a token have one where it is set. Buckets live with the
scheduler's leader; gateways take tokens from them ahead, in slices, so that a request asks nobody.
"""

import hashlib

from tidemill._dataclass import dataclass

WORKSPACE, APP, TOKEN = "workspace", "app", "token"
KINDS = (WORKSPACE, APP, TOKEN)

MIN_RATE, MAX_RATE = 1e-3, 1e6  # tokens per second
MAX_BURST = 1e7  # tokens
MAX_FILL = 3_600.0  # seconds that an empty bucket takes to be full


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: `rate` tokens per second, at most `burst` of them."""

    rate: float = 200.0
    burst: float = 1_000.0


DEFAULT = Limit()  # of a workspace


@dataclass(frozen=True, slots=True)
class LimitRecord:
    """An entry of the `limits` bucket, under `key`; also how a limit is shown.

    `name` is that of the app in its environment, or the id of the token; a workspace's own has neither.
    """

    workspace: str
    kind: str
    environment: str
    name: str
    limit: Limit


def key(workspace: str, kind: str, environment: str = "", name: str = "") -> str:
    """Return the key of a limit in its bucket, which also names the tokens that it is made of."""
    named = f"{workspace}\0{kind}\0{environment}\0{name}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


# --- asked of the registry


@dataclass(frozen=True, slots=True)
class SetLimit:
    """`tm.registry.<ws>.set_limit`: limit the workspace, an app (by name) or a token (by id).

    Without `burst` it is the tokens of five seconds, and never more than those of an hour. Answered by the
    `LimitRecord`.
    """

    kind: str
    rate: float
    burst: float | None = None
    environment: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class RemoveLimit:
    """`tm.registry.<ws>.remove_limit`: the workspace has the default again; others are limited no more.

    Answered by `Done`.
    """

    kind: str
    environment: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ListLimits:
    """`tm.registry.<ws>.list_limits`: the limits that were set. Answered by a `LimitList`."""


@dataclass(frozen=True, slots=True)
class LimitList:
    """The answer to `ListLimits`."""

    limits: tuple[LimitRecord, ...]


# --- asked of the scheduler's leader


@dataclass(frozen=True, slots=True)
class Want:
    """What a gateway wants of one bucket, named by the `key` of its limit, for the life of an `account`.

    `waiting` requests need a token each; `ahead` is how many would be used soon. `returned` counts all that
    the account ever gave back, so that a repeat gives nothing back twice. `spent` were taken while nobody
    could be asked.
    """

    key: str
    kind: str
    account: str
    waiting: int = 0
    ahead: int = 0
    returned: int = 0
    spent: int = 0


@dataclass(frozen=True, slots=True)
class LeaseTokens:
    """`tm.internal.scheduler.lease_tokens`: give tokens of some buckets. Answered by `TokensLeased`."""

    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """The tokens of one bucket. `level` are left; if they do not suffice, more come in `wait` seconds."""

    tokens: int
    level: float
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class TokensLeased:
    """The answer to `LeaseTokens`, grant by want."""

    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class LevelRecord:
    """An entry of the `levels` bucket, by which a new leader knows what the one before gave away."""

    tokens: float
    at: float
