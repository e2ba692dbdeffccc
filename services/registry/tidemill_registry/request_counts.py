"""Requests to web functions that succeeded: not recorded one by one, but counted by the minute.

A worker tells how many there were in a minute so far, and tells it again when there are more: the greatest
number of each worker counts, however often and in whatever order they come.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVarTuple

import msgspec
from sqlalchemy import Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire.calls import CountRequests, RecordBatch, RequestCounts, RequestMinute
from tidemill.exception import InvalidError
from tidemill_registry.database import transaction
from tidemill_registry.folding import AHEAD, RETENTION
from tidemill_registry.rows import PoolInfo
from tidemill_registry.schema import Function, RequestCountRow

MINUTE = 60.0
MAX_LISTED = 10_080  # minutes of a week
MOST = 2**53
MAX_MINUTE = 2**31 - 1  # that the table can hold; years of four digits go beyond it

Columns = TypeVarTuple("Columns")
Key = tuple[str, int, str]  # pool, minute, source

_SOURCE = re.compile(r"[A-Za-z0-9-]{1,64}")
_encode = msgspec.json.Encoder().encode

_COUNTS = text("""
INSERT INTO request_counts AS n (workspace, function_id, minute, pool_id, source, app_id, succeeded)
SELECT :workspace, r.function_id, r.minute, r.pool_id, r.source, r.app_id, r.succeeded
FROM json_to_recordset(CAST(:rows AS json))
  AS r(function_id text, minute int, pool_id text, source text, app_id text, succeeded bigint)
ON CONFLICT (workspace, function_id, minute, pool_id, source) DO UPDATE SET
  succeeded = greatest(n.succeeded, excluded.succeeded)
""")


def fold(batches: Iterable[RecordBatch], now: float) -> dict[Key, int]:
    """Return what batches say of requests: the greatest number of each source. The impossible is left out."""
    first, last = (now - RETENTION) // MINUTE, (now + AHEAD) // MINUTE
    greatest: dict[Key, int] = {}
    for batch in batches:
        for pool, minute, succeeded in batch.requests:
            if first <= minute <= last and 0 < succeeded <= MOST and _SOURCE.fullmatch(batch.source):
                key = pool, minute, batch.source
                greatest[key] = max(greatest.get(key, 0), succeeded)
    return greatest


async def write(
    connection: AsyncConnection, workspace: str, counts: Mapping[Key, int], pools: Mapping[str, PoolInfo]
) -> None:
    """Write a workspace's numbers in the caller's transaction. `pools` are its own."""
    rows = [
        {
            "function_id": pools[pool].function_id,
            "minute": minute,
            "pool_id": pool,
            "source": source,
            "app_id": pools[pool].app_id,
            "succeeded": succeeded,
        }
        for (pool, minute, source), succeeded in sorted(counts.items())
        if pool in pools
    ]
    if rows:
        await connection.execute(_COUNTS, {"workspace": workspace, "rows": _encode(rows).decode()})


async def count(engine: AsyncEngine, workspace: str, request: CountRequests) -> RequestCounts:
    """Answer how many requests have succeeded."""
    if not 1 <= request.limit <= MAX_LISTED:
        raise InvalidError(f"limit must be between 1 and {MAX_LISTED:,}")
    row = RequestCountRow
    number = func.sum(row.succeeded)
    minutes = (
        select(row.minute, row.function_id, number.label("succeeded"))
        .group_by(row.minute, row.function_id)
        .order_by(row.minute.desc(), row.function_id)
        .limit(request.limit)
    )
    async with transaction(engine) as connection:
        succeeded = await total(connection, workspace, request)
        found = (await connection.execute(_of(minutes, workspace, request))).all()
    listed = (RequestMinute(each.minute * MINUTE, each.function_id, int(each.succeeded)) for each in found)
    return RequestCounts(succeeded, tuple(listed))


async def total(connection: AsyncConnection, workspace: str, request: CountRequests) -> int:
    """Return how many requests have succeeded, without saying when."""
    number = func.coalesce(func.sum(RequestCountRow.succeeded), 0)
    return int(await connection.scalar(_of(select(number), workspace, request)) or 0)


def _of(query: Select[*Columns], workspace: str, request: CountRequests) -> Select[*Columns]:
    """Return a query about what is asked for only."""
    row = RequestCountRow
    query = query.where(row.workspace == workspace)
    if request.app_id:
        query = query.where(row.app_id == request.app_id)
    if request.function_id:
        query = query.where(row.function_id == request.function_id)
    if request.function:
        named = select(Function.id).where(Function.name == request.function)
        query = query.where(row.function_id.in_(named))
    if request.since is not None:
        query = query.where(row.minute >= int(max(0.0, min(request.since / MINUTE, MAX_MINUTE))))
    if request.until is not None:
        query = query.where(row.minute < request.until / MINUTE)
    return query
