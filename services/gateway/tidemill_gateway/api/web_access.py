"""Who may use the workspace's web functions, and how often: proxy tokens and limits."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from tidemill._wire import control, limits
from tidemill._wire import proxy_tokens as wire
from tidemill_gateway.api.answering import Environment, Requester, show_page
from tidemill_gateway.api.models import Given, Page, fields_of, moment, perhaps

router = APIRouter(tags=["web access"])

TokenRef = Annotated[str, Path(pattern=r"^pt-[a-z0-9]{26}$", description="a proxy token's id")]
Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="of the app, or the token's id")]


@dataclass(frozen=True, slots=True)
class ProxyToken:
    """A proxy token without its secret."""

    id: str
    name: str
    created: datetime
    revoked: datetime | None

    @classmethod
    def of(cls, info: wire.ProxyTokenInfo) -> "ProxyToken":
        """Return it as it is shown."""
        return cls(info.token_id, info.name, moment(info.created), perhaps(info.revoked))


@dataclass(frozen=True, slots=True)
class MadeProxyToken(ProxyToken):
    """A proxy token that was just made: its secret is told this once."""

    secret: str


class NewProxyToken(Given):
    """A proxy token to make."""

    name: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9_. -]*$")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many requests per second are let through, and how many at once after a pause."""

    kind: str
    environment: str | None
    name: str | None
    rate: float
    burst: float

    @classmethod
    def of(cls, record: limits.LimitRecord) -> "RateLimit":
        """Return it as it is shown."""
        limit = record.limit
        return cls(record.kind, record.environment or None, record.name or None, limit.rate, limit.burst)


class NewRateLimit(Given):
    """A limit to set. Without `burst` it is five seconds' worth, and never more than an hour's."""

    rate: float = Field(ge=limits.MIN_RATE, le=limits.MAX_RATE, description="requests per second")
    burst: float | None = Field(default=None, ge=1, le=limits.MAX_BURST)


# --- proxy tokens


@router.get("/proxy-tokens", response_model=Page[ProxyToken])
async def list_proxy_tokens(
    request: Request,
    requester: Requester,
    include_revoked: Annotated[bool, Query(description="also those that are not good any more")] = False,
) -> Response:
    """List the tokens that open web functions with `requires_proxy_auth`, newest first."""
    wanted = wire.ListProxyTokens(include_revoked)
    found = await requester.registry("list_proxy_tokens", wanted, wire.ProxyTokenList)
    return show_page(request, [ProxyToken.of(info) for info in found.tokens], "")


@router.post("/proxy-tokens", response_model=MadeProxyToken, status_code=201)
async def create_proxy_token(requester: Requester, new: NewProxyToken, response: Response) -> MadeProxyToken:
    """Make a proxy token. The answer has its secret, which is kept nowhere."""
    wanted = wire.CreateProxyToken(new.name)
    made = await requester.registry("create_proxy_token", wanted, wire.ProxyTokenCreated)
    response.headers["Cache-Control"] = "no-store"
    return MadeProxyToken(**fields_of(ProxyToken.of(made.token)), secret=made.secret)


@router.delete("/proxy-tokens/{token}", status_code=204)
async def revoke_proxy_token(requester: Requester, token: TokenRef) -> Response:
    """Revoke a proxy token. From now on it opens nothing."""
    await requester.registry("revoke_proxy_token", wire.RevokeProxyToken(token), control.Done)
    return Response(status_code=204)


# --- limits


@router.get("/rate-limits", response_model=Page[RateLimit])
async def list_rate_limits(request: Request, requester: Requester) -> Response:
    """List the limits that were set. Without one the workspace has 200 per second, 1,000 at once."""
    found = await requester.registry("list_limits", limits.ListLimits(), limits.LimitList)
    return show_page(request, [RateLimit.of(record) for record in found.limits], "")


@router.put("/rate-limits/workspace", response_model=RateLimit)
async def limit_workspace(requester: Requester, new: NewRateLimit) -> RateLimit:
    """Limit the workspace's web requests and calls by REST together."""
    return await _set(requester, limits.SetLimit(limits.WORKSPACE, new.rate, new.burst))


@router.put("/rate-limits/{kind}/{name}", response_model=RateLimit)
async def limit_part(
    requester: Requester,
    kind: Literal["app", "token"],
    name: Name,
    new: NewRateLimit,
    environment: Environment = "main",
) -> RateLimit:
    """Limit what concerns one app, or comes with one token, in addition to the workspace's limit."""
    wanted = limits.SetLimit(kind, new.rate, new.burst, environment if kind == "app" else "", name)
    return await _set(requester, wanted)


@router.delete("/rate-limits/workspace", status_code=204)
async def unlimit_workspace(requester: Requester) -> Response:
    """Give the workspace the default limit again."""
    return await _remove(requester, limits.RemoveLimit(limits.WORKSPACE))


@router.delete("/rate-limits/{kind}/{name}", status_code=204)
async def unlimit_part(
    requester: Requester, kind: Literal["app", "token"], name: Name, environment: Environment = "main"
) -> Response:
    """Remove the limit of an app or a token."""
    return await _remove(requester, limits.RemoveLimit(kind, environment if kind == "app" else "", name))


async def _set(requester: Requester, wanted: limits.SetLimit) -> RateLimit:
    return RateLimit.of(await requester.registry("set_limit", wanted, limits.LimitRecord))


async def _remove(requester: Requester, wanted: limits.RemoveLimit) -> Response:
    await requester.registry("remove_limit", wanted, control.Done)
    return Response(status_code=204)
