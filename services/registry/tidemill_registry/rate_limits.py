"""Limits of requests to a workspace, an app or with a token: rows, and what NATS is told of them."""

from typing import Any

from sqlalchemy import Row, Select, delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import coding, limits
from tidemill._wire.control import Done
from tidemill._wire.limits import Limit, LimitList, LimitRecord, ListLimits, RemoveLimit, SetLimit
from tidemill.exception import InvalidError, NotFoundError
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_registry import checks, environments, outbox, read_models, workspaces
from tidemill_registry.database import transaction
from tidemill_registry.outbox import Entry
from tidemill_registry.schema import RateLimit, Workspace

BURST = 5.0  # seconds of a rate that may come at once, where nothing else is said
MAX_LIMITS = 1_000  # of a workspace
MAX_NAME = 128
_IDENTITY = ["workspace_id", "kind", "environment", "name"]


async def put(engine: AsyncEngine, workspace: str, request: SetLimit) -> LimitRecord:
    """Set a limit, or change it. `InvalidError`, `NotFoundError`."""
    limit = _checked(request)
    async with transaction(engine) as connection:
        record = await _record(connection, workspace, request, limit)
        workspace_id = await workspaces.find(connection, workspace)
        of_workspace = RateLimit.workspace_id == workspace_id
        count = await connection.scalar(select(func.count()).select_from(RateLimit).where(of_workspace))
        if count is not None and count >= MAX_LIMITS:
            raise InvalidError(f"a workspace has at most {MAX_LIMITS:,} limits")
        values = {
            "workspace_id": workspace_id,
            "kind": record.kind,
            "environment": record.environment,
            "name": record.name,
            "rate": limit.rate,
            "burst": limit.burst,
        }
        changed = {"rate": limit.rate, "burst": limit.burst}
        statement = upsert(RateLimit).values(values)
        await connection.execute(statement.on_conflict_do_update(index_elements=_IDENTITY, set_=changed))
        await outbox.enqueue(connection, [Entry("put", streams.LIMITS, _key(record), coding.encode(record))])
    return record


async def remove(engine: AsyncEngine, workspace: str, request: RemoveLimit) -> Done:
    """Remove a limit that was set; `NotFoundError`."""
    if "\0" in f"{request.kind}{request.environment}{request.name}":  # PostgreSQL takes none
        raise NotFoundError("no limit is set for what has such a name")
    async with transaction(engine) as connection:
        gone = delete(RateLimit).where(
            RateLimit.workspace_id == await workspaces.find(connection, workspace),
            RateLimit.kind == request.kind,
            RateLimit.environment == _environment(request),
            RateLimit.name == request.name,
        )
        if await connection.scalar(gone.returning(RateLimit.kind)) is None:
            raise NotFoundError(
                f"no limit is set for {_shown(request)}", hint="see `tidemill workspace rate-limit list`"
            )
        key = limits.key(workspace, request.kind, _environment(request), request.name)
        await outbox.enqueue(connection, [Entry("delete", streams.LIMITS, key, None)])
    return Done()


async def of(engine: AsyncEngine, workspace: str, _request: ListLimits) -> LimitList:
    """Return the limits that were set, the workspace's own first."""
    query = _limits().where(Workspace.name == workspace)
    order = (RateLimit.kind != limits.WORKSPACE, RateLimit.kind, RateLimit.environment, RateLimit.name)
    async with transaction(engine) as connection:
        rows = await connection.execute(query.order_by(*order))
        return LimitList(tuple(_of_row(row) for row in rows))


async def reconcile(connection: AsyncConnection, bus: ServiceBus) -> int:
    """Make the bucket hold what the table says; return how many repairs that took."""
    records = [_of_row(row) for row in await connection.execute(_limits())]
    wanted = {_key(record): coding.encode(record) for record in records}
    return await read_models.correct(bus.bucket(streams.LIMITS), wanted)


# --- what can be limited, and how


def _checked(request: SetLimit) -> Limit:
    if request.kind not in limits.KINDS:
        raise InvalidError(f"nothing has limits that is a {request.kind[:50]!r}")
    if not limits.MIN_RATE <= request.rate <= limits.MAX_RATE:
        raise InvalidError(
            f"a rate is {limits.MIN_RATE:g} to {limits.MAX_RATE:,.0f} requests per second,"
            f" not {request.rate:g}"
        )
    burst = max(1.0, request.rate * BURST) if request.burst is None else request.burst
    if not 1 <= burst <= limits.MAX_BURST:
        raise InvalidError(f"a burst is 1 to {limits.MAX_BURST:,.0f} requests, not {burst:g}")
    return Limit(request.rate, min(burst, request.rate * limits.MAX_FILL))


async def _record(
    connection: AsyncConnection, workspace: str, request: SetLimit, limit: Limit
) -> LimitRecord:
    environment = _environment(request)
    match request.kind:
        case limits.WORKSPACE if request.name:
            raise InvalidError("the limit of the workspace has no name")
        case limits.APP:
            checks.check_name("an app", request.name)
            await environments.find(connection, workspace, environment)
        case limits.TOKEN if not 0 < len(request.name) <= MAX_NAME or "\0" in request.name:
            raise InvalidError("the limit of a token names the token's id")
    return LimitRecord(workspace, request.kind, environment, request.name, limit)


def _environment(request: SetLimit | RemoveLimit) -> str:
    return (request.environment or "main") if request.kind == limits.APP else ""


def _shown(request: RemoveLimit) -> str:
    return f"the {request.kind} {request.name}".strip()


def _key(record: LimitRecord) -> str:
    return limits.key(record.workspace, record.kind, record.environment, record.name)


def _limits() -> Select[*tuple[Any, ...]]:
    query = select(RateLimit.kind, RateLimit.environment, RateLimit.name, RateLimit.rate, RateLimit.burst)
    return query.add_columns(Workspace.name.label("workspace")).join(
        Workspace, RateLimit.workspace_id == Workspace.id
    )


def _of_row(row: Row[*tuple[Any, ...]]) -> LimitRecord:
    return LimitRecord(row.workspace, row.kind, row.environment, row.name, Limit(row.rate, row.burst))
