"""Tokens that open web functions with `requires_proxy_auth`: what is asked of the registry about them.

A proxy token is of one workspace and opens nothing else. Times are unix.
"""

from tidemill._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ProxyTokenInfo:
    """A proxy token as it is shown: everything but its secret."""

    token_id: str
    name: str
    created: float
    revoked: float | None = None


@dataclass(frozen=True, slots=True)
class CreateProxyToken:
    """`tm.registry.<ws>.create_proxy_token`: answered by `ProxyTokenCreated`."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class ProxyTokenCreated:
    """The answer to `CreateProxyToken`: the secret is told this once and kept nowhere."""

    token: ProxyTokenInfo
    secret: str


@dataclass(frozen=True, slots=True)
class ListProxyTokens:
    """`tm.registry.<ws>.list_proxy_tokens`: newest first. Answered by a `ProxyTokenList`."""

    include_revoked: bool = False


@dataclass(frozen=True, slots=True)
class ProxyTokenList:
    """The answer to `ListProxyTokens`."""

    tokens: tuple[ProxyTokenInfo, ...]


@dataclass(frozen=True, slots=True)
class RevokeProxyToken:
    """`tm.registry.<ws>.revoke_proxy_token`: it opens nothing any more. Once more changes nothing.

    Answered by `Done` when the gateways were told.
    """

    token_id: str


@dataclass(frozen=True, slots=True)
class ProxyTokenRecord:
    """An entry of the `proxy_tokens` bucket, under the token's id: a token that is good, and for whom."""

    workspace: str
    secret_sha256: bytes
