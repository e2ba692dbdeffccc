"""Tokens: made, listed, checked, revoked.

A secret is 256 random bits, of which the SHA-256 is kept. Slow and salted hashes are there for secrets that
somebody could guess; nobody guesses these, and a slow hash would let strangers buy the registry's time with
wrong secrets.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, bindparam, case, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import InstrumentedAttribute, aliased

from tidemill._wire import ids
from tidemill._wire.tokens import (
    KINDS,
    MEMBER,
    WORKER_PREFIXES,
    CreateToken,
    TokenCreated,
    TokenInfo,
)
from tidemill.exception import AuthError, InvalidError, NotFoundError
from tidemill_registry import workspaces
from tidemill_registry.database import Clock, question, transaction
from tidemill_registry.schema import Token, Workspace

USED_STEP = timedelta(minutes=5)  # between two notes that a token is in use
MAX_NAME = 100
MIN_SECRET = 32  # characters of a secret that was made elsewhere
MAX_LISTED = 1_000

_OF_NOBODY = bytes(32)  # no secret's digest
_KINDS = {prefix: kind for kind, prefix in WORKER_PREFIXES.items()}


class Verified(NamedTuple):
    """A token that is good; `is_noted` when it was written down lately that it is in use."""

    token: TokenInfo
    is_noted: bool


class Tokens:
    """The tokens of all workspaces, and those of workers."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        # Made once: every connection asks this, and to make it takes longer than to be answered.
        self._known = (
            _tokens()
            .add_columns(Token.secret_sha256, clock().label("now"))
            .where(Token.id == bindparam("token"))
        )

    async def create(
        self, workspace: str, request: CreateToken, by: str = "", *, kind: str = MEMBER
    ) -> TokenCreated:
        """Make a token; for a worker `workspace` is empty. `NotFoundError`, `InvalidError`."""
        _check(request, kind)
        secret = new_secret()
        token_id = ids.new_token(workspace) if kind == MEMBER else ids.new(WORKER_PREFIXES[kind])
        async with transaction(self._engine) as connection:
            values: dict[str, Any] = {
                "id": token_id,
                "workspace_id": await workspaces.find(connection, workspace) if kind == MEMBER else None,
                "name": request.name,
                "kind": kind,
                "secret_sha256": digest(secret),
                "created_by": by,
            }
            if request.lifetime is not None:
                values["expires_at"] = self._clock() + timedelta(seconds=request.lifetime)
            await connection.execute(upsert(Token).values(values))
            row = (await connection.execute(_shown_tokens().where(Token.id == token_id))).one()
        return TokenCreated(_shown_info(row), secret)

    async def ensure(self, given: Mapping[str, str]) -> None:
        """Make tokens (id -> secret) that were made elsewhere, for a start from nothing."""
        async with transaction(self._engine) as connection:
            for token_id, secret in given.items():
                if len(secret) < MIN_SECRET:
                    raise InvalidError(f"the secret of {token_id} has less than {MIN_SECRET} characters")
                workspace, kind = read_id(token_id)
                values = {
                    "id": token_id,
                    "workspace_id": await workspaces.find(connection, workspace) if workspace else None,
                    "name": "first",
                    "kind": kind,
                    "secret_sha256": digest(secret),
                }
                made = upsert(Token).values(values)
                replaced = {"secret_sha256": digest(secret)}
                await connection.execute(made.on_conflict_do_update(index_elements=["id"], set_=replaced))

    async def of(self, workspace: str, *, include_revoked: bool) -> tuple[TokenInfo, ...]:
        """Return a workspace's tokens, newest first; with an empty name those of workers."""
        owned = Workspace.name == workspace if workspace else Token.workspace_id.is_(None)
        query = _shown_tokens().where(owned)
        if not include_revoked:
            query = query.where(Token.revoked_at.is_(None))
        async with transaction(self._engine) as connection:
            rows = await connection.execute(query.order_by(Token.created_at.desc()).limit(MAX_LISTED))
            return tuple(_shown_info(row) for row in rows)

    async def revoke(self, workspace: str, token_id: str, by: str = "") -> None:
        """End a token of a workspace, or with an empty name one of a worker; `NotFoundError`.

        One that has ended already stays as it is.
        """
        owner = select(Workspace.id).where(Workspace.name == workspace).scalar_subquery()
        owned = Token.workspace_id == owner if workspace else Token.workspace_id.is_(None)
        ended = update(Token).where(Token.id == token_id, owned)
        values = {
            "revoked_at": func.coalesce(Token.revoked_at, self._clock()),
            "revoked_by": case((Token.revoked_at.is_(None), by), else_=Token.revoked_by),
        }
        async with transaction(self._engine) as connection:
            if await connection.scalar(ended.values(values).returning(Token.id)) is None:
                raise NotFoundError(f"there is no token {token_id!r}", hint="see `tidemill token list`")

    async def verify(self, token_id: str, secret: str) -> Verified:
        """Return a good token; `AuthError` tells why it is not good."""
        if "\0" in token_id:  # anybody may ask, and PostgreSQL takes none
            raise AuthError("there is no such token")
        async with question(self._engine) as connection:
            row = (await connection.execute(self._known, {"token": token_id})).first()
        is_right = opens(None if row is None else row.secret_sha256, secret)
        if row is None:
            raise AuthError("there is no such token")
        if not is_right:
            raise AuthError("the secret is wrong")
        if row.revoked_at is not None:
            raise AuthError("the token was revoked")
        if row.expires_at is not None and row.expires_at <= row.now:
            raise AuthError("the token has expired")
        is_noted = row.last_used_at is not None and row.last_used_at > row.now - USED_STEP
        return Verified(_info(row), is_noted)

    async def note_use(self, token_id: str) -> None:
        """Note that a token is in use now, if that was not noted lately."""
        now = self._clock()
        old = or_(Token.last_used_at.is_(None), Token.last_used_at < now - USED_STEP)
        async with transaction(self._engine) as connection:
            await connection.execute(text("SET LOCAL synchronous_commit = off"))
            await connection.execute(update(Token).where(Token.id == token_id, old).values(last_used_at=now))

    async def lately_ended(self, within: timedelta) -> list[str]:
        """Return the ids of tokens that were revoked lately: their connections are to end."""
        async with transaction(self._engine) as connection:
            query = select(Token.id).where(Token.revoked_at > self._clock() - within)
            return list(await connection.scalars(query))


def shown(token_id: ColumnElement[str] | InstrumentedAttribute[str]) -> ColumnElement[str]:
    """Return how a column's token is shown to people: by its name if it has one, else its id."""
    known = aliased(Token)  # the column may be one of the tokens' own table
    name = select(known.name).where(known.id == token_id, known.name != "").scalar_subquery()
    return func.coalesce(name, token_id)


def new_secret(prefix: str = "as") -> str:
    """Return a new secret: 256 random bits."""
    return f"{prefix}-{secrets.token_urlsafe(32)}"


def digest(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def opens(stored: bytes | None, secret: str) -> bool:
    """Return whether a secret is the one whose digest is stored; None, of no token, takes as long as any."""
    return hmac.compare_digest(_OF_NOBODY if stored is None else stored, digest(secret))


def read_id(token_id: str) -> tuple[str, str]:
    """Return the workspace (empty for a worker's) and the kind that a token's id tells; `InvalidError`."""
    if (kind := _KINDS.get(token_id.partition("-")[0])) is not None:
        return "", kind
    try:
        return ids.workspace_of_token(token_id), MEMBER
    except ValueError as error:
        raise InvalidError(str(error)) from error


def _check(request: CreateToken, kind: str) -> None:
    if kind not in KINDS:
        raise InvalidError(f"not a kind of token: {kind!r}", hint=f"use one of: {', '.join(KINDS)}")
    if len(request.name) > MAX_NAME or "\0" in request.name:
        raise InvalidError(f"a token's name has at most {MAX_NAME} characters")
    if request.lifetime is not None and not 0 < request.lifetime <= timedelta(days=36_500).total_seconds():
        raise InvalidError("a token's lifetime must be above 0 s")


def _tokens() -> Select[*tuple[Any, ...]]:
    return select(
        Token.id,
        Token.name,
        Token.kind,
        Token.created_at,
        Token.expires_at,
        Token.revoked_at,
        Token.last_used_at,
        Workspace.name.label("workspace"),
    ).outerjoin(Workspace, Token.workspace_id == Workspace.id)


def _shown_tokens() -> Select[*tuple[Any, ...]]:
    """Return the query for tokens with whoever made and revoked them."""
    return _tokens().add_columns(
        shown(Token.created_by).label("maker"), shown(Token.revoked_by).label("revoker")
    )


def _shown_info(row: Row[*tuple[Any, ...]]) -> TokenInfo:
    return replace(_info(row), created_by=row.maker, revoked_by=row.revoker)


def _info(row: Row[*tuple[Any, ...]]) -> TokenInfo:
    def unix(column: str) -> float | None:
        moment = getattr(row, column)
        return moment.timestamp() if moment is not None else None

    return TokenInfo(
        token_id=row.id,
        name=row.name,
        kind=row.kind,
        workspace=row.workspace or "",
        created=row.created_at.timestamp(),
        expires=unix("expires_at"),
        revoked=unix("revoked_at"),
        last_used=unix("last_used_at"),
    )
