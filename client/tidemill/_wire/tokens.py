"""Tokens and workspaces: what is asked of the registry about them.

A token of kind `member` may do everything in one workspace, which its id names. Tokens of the kinds
`worker` and `gpu-worker` are for the workers of a whole installation and are of no workspace; only the
registry's own command line makes them. Times are unix.
"""

from tidemill._dataclass import dataclass

MEMBER, WORKER, GPU_WORKER = "member", "worker", "gpu-worker"
KINDS = (MEMBER, WORKER, GPU_WORKER)
WORKER_PREFIXES = {WORKER: "wk", GPU_WORKER: "wg"}  # of their ids


def kind_of_worker(token_id: str) -> str:
    """Return the kind of a worker's token; empty for what is none."""
    prefix = token_id.partition("-")[0]
    return next((kind for kind, theirs in WORKER_PREFIXES.items() if theirs == prefix), "")


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token as it is shown: everything but its secret.

    `last_used` is the time of the last connection, in steps of some minutes. `created_by` and `revoked_by`
    are the name of a token, or its id; empty for what the registry's own command line did.
    """

    token_id: str
    name: str
    kind: str
    workspace: str
    created: float
    expires: float | None = None
    revoked: float | None = None
    last_used: float | None = None
    created_by: str = ""
    revoked_by: str = ""


@dataclass(frozen=True, slots=True)
class CreateToken:
    """`tm.registry.<ws>.create_token`: make a token for a member of the workspace that asks.

    `lifetime` is in seconds; without it the token is good until it is revoked.
    """

    name: str = ""
    lifetime: float | None = None


@dataclass(frozen=True, slots=True)
class TokenCreated:
    """The answer to `CreateToken`: the secret is told this once and kept nowhere."""

    token: TokenInfo
    secret: str


@dataclass(frozen=True, slots=True)
class ListTokens:
    """`tm.registry.<ws>.list_tokens`: the workspace's tokens, newest first. Answered by a `TokenList`."""

    include_revoked: bool = False


@dataclass(frozen=True, slots=True)
class TokenList:
    """The answer to `ListTokens`."""

    tokens: tuple[TokenInfo, ...]


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """`tm.registry.<ws>.revoke_token`: end a token of the workspace, and its connections within seconds.

    Revoking it again changes nothing. Answered by `Done`.
    """

    token_id: str


@dataclass(frozen=True, slots=True)
class VerifyToken:
    """`tm.internal.registry.verify_token`: is this a good token? For services that are shown one.

    Answered by the token's `TokenInfo`, or refused with the code `auth`.
    """

    token_id: str
    secret: str
