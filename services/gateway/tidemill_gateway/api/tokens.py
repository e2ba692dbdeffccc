"""Tokens of the workspace."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from tidemill._wire import control
from tidemill._wire import tokens as wire
from tidemill_gateway.api.answering import Requester, show_page
from tidemill_gateway.api.models import Given, Page, fields_of, moment, perhaps

router = APIRouter(tags=["tokens"])

TokenRef = Annotated[str, Path(pattern=r"^ak-[a-z0-9-]{1,80}$", description="a token's id")]
MAX_LIFETIME = 10 * 365 * 86_400.0  # seconds


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret."""

    id: str
    name: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    last_used: datetime | None
    created_by: str
    revoked_by: str

    @classmethod
    def of(cls, info: wire.TokenInfo) -> "Token":
        """Return it as it is shown."""
        return cls(
            id=info.token_id,
            name=info.name,
            created=moment(info.created),
            expires=perhaps(info.expires),
            revoked=perhaps(info.revoked),
            last_used=perhaps(info.last_used),
            created_by=info.created_by,
            revoked_by=info.revoked_by,
        )


@dataclass(frozen=True, slots=True)
class MadeToken(Token):
    """A token that was just made: its secret is told this once."""

    secret: str


class NewToken(Given):
    """A token to make."""

    name: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9_. -]*$")
    lifetime: float | None = Field(
        default=None, gt=0, le=MAX_LIFETIME, description="seconds; without it for ever"
    )


@router.get("/tokens", response_model=Page[Token])
async def list_tokens(
    request: Request,
    requester: Requester,
    include_revoked: Annotated[bool, Query(description="also those that are not good any more")] = False,
) -> Response:
    """List the workspace's tokens, newest first."""
    found = await requester.registry("list_tokens", wire.ListTokens(include_revoked), wire.TokenList)
    return show_page(request, [Token.of(info) for info in found.tokens], "")


@router.post("/tokens", response_model=MadeToken, status_code=201)
async def create_token(requester: Requester, new: NewToken, response: Response) -> MadeToken:
    """Make a token for a member of the workspace. The answer has its secret, which is kept nowhere."""
    made = await requester.registry(
        "create_token", wire.CreateToken(new.name, new.lifetime), wire.TokenCreated
    )
    response.headers["Cache-Control"] = "no-store"
    return MadeToken(**fields_of(Token.of(made.token)), secret=made.secret)


@router.delete("/tokens/{token}", status_code=204)
async def revoke_token(requester: Requester, token: TokenRef) -> Response:
    """Revoke a token. Within seconds it opens nothing any more, this one's own requests included."""
    await requester.registry("revoke_token", wire.RevokeToken(token), control.Done)
    return Response(status_code=204)
