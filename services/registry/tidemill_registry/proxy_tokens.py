"""Proxy tokens: made, listed, revoked. See `tidemill_registry.tokens` for how secrets are kept."""

from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import coding, ids
from tidemill._wire.control import Done
from tidemill._wire.proxy_tokens import (
    CreateProxyToken,
    ListProxyTokens,
    ProxyTokenCreated,
    ProxyTokenInfo,
    ProxyTokenList,
    ProxyTokenRecord,
    RevokeProxyToken,
)
from tidemill.exception import InvalidError, NotFoundError
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_registry import outbox, read_models, tokens, workspaces
from tidemill_registry.database import transaction
from tidemill_registry.outbox import Entry
from tidemill_registry.schema import ProxyToken, Workspace

MAX_TOKENS = 1_000  # of a workspace that are good

_SHOWN = (ProxyToken.id, ProxyToken.name, ProxyToken.created_at, ProxyToken.revoked_at)


async def create(engine: AsyncEngine, workspace: str, request: CreateProxyToken) -> ProxyTokenCreated:
    """Make a proxy token. `InvalidError`."""
    if len(request.name) > tokens.MAX_NAME or "\0" in request.name:
        raise InvalidError(f"a token's name has at most {tokens.MAX_NAME} characters")
    token_id, secret = ids.new(ids.PROXY_TOKEN), tokens.new_secret("ps")
    digest = tokens.digest(secret)
    async with transaction(engine) as connection:
        workspace_id = await workspaces.find(connection, workspace)
        good = (ProxyToken.workspace_id == workspace_id, ProxyToken.revoked_at.is_(None))
        count = await connection.scalar(select(func.count()).select_from(ProxyToken).where(*good))
        if count is not None and count >= MAX_TOKENS:
            raise InvalidError(f"a workspace has at most {MAX_TOKENS:,} proxy tokens", hint="revoke some")
        values = {
            "id": token_id,
            "workspace_id": workspace_id,
            "name": request.name,
            "secret_sha256": digest,
        }
        row = (await connection.execute(insert(ProxyToken).values(values).returning(*_SHOWN))).one()
        record = coding.encode(ProxyTokenRecord(workspace, digest))
        await outbox.enqueue(connection, [Entry("put", streams.PROXY_TOKENS, token_id, record)])
    return ProxyTokenCreated(_info(row), secret)


async def of(engine: AsyncEngine, workspace: str, request: ListProxyTokens) -> ProxyTokenList:
    """Return a workspace's proxy tokens, newest first."""
    query = select(*_SHOWN).join(Workspace, ProxyToken.workspace_id == Workspace.id)
    query = query.where(Workspace.name == workspace)
    if not request.include_revoked:
        query = query.where(ProxyToken.revoked_at.is_(None))
    async with transaction(engine) as connection:
        rows = await connection.execute(query.order_by(ProxyToken.id.desc()).limit(MAX_TOKENS))
        return ProxyTokenList(tuple(_info(row) for row in rows))


async def revoke(engine: AsyncEngine, workspace: str, request: RevokeProxyToken) -> Done:
    """End a proxy token; `NotFoundError`."""
    if "\0" in request.token_id:  # PostgreSQL takes none
        raise NotFoundError("there is no such proxy token")
    async with transaction(engine) as connection:
        ended = update(ProxyToken).where(
            ProxyToken.id == request.token_id,
            ProxyToken.workspace_id == await workspaces.find(connection, workspace),
        )
        now = func.coalesce(ProxyToken.revoked_at, func.now())
        if await connection.scalar(ended.values(revoked_at=now).returning(ProxyToken.id)) is None:
            raise NotFoundError(
                f"there is no proxy token {request.token_id!r}",
                hint="see `tidemill workspace proxy-tokens list`",
            )
        await outbox.enqueue(connection, [Entry("delete", streams.PROXY_TOKENS, request.token_id, None)])
    return Done()


async def reconcile(connection: AsyncConnection, bus: ServiceBus) -> int:
    """Make the bucket hold what the table says; return how many repairs that took."""
    query = select(ProxyToken.id, ProxyToken.secret_sha256, Workspace.name)
    query = query.join(Workspace, ProxyToken.workspace_id == Workspace.id)
    rows = await connection.execute(query.where(ProxyToken.revoked_at.is_(None)))
    wanted = {row.id: coding.encode(ProxyTokenRecord(row.name, row.secret_sha256)) for row in rows}
    return await read_models.correct(bus.bucket(streams.PROXY_TOKENS), wanted)


def _info(row: Row[*tuple[Any, ...]]) -> ProxyTokenInfo:
    revoked = row.revoked_at
    return ProxyTokenInfo(
        row.id, row.name, row.created_at.timestamp(), None if revoked is None else revoked.timestamp()
    )
