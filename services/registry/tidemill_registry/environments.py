"""Workspaces and their environments: found by name, made, renamed, deleted with all that is in them."""

import re
from dataclasses import replace

from sqlalchemy import Row, Select, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import ids
from tidemill._wire.environments import (
    CreateEnvironment,
    DeleteEnvironment,
    EnvironmentInfo,
    EnvironmentList,
    UpdateEnvironment,
)
from tidemill.exception import AlreadyExistsError, ConflictError, InvalidError, NotFoundError
from tidemill_registry import checks, outbox, records
from tidemill_registry.database import transaction
from tidemill_registry.schema import App, Environment, PoolRow, Workspace

SEE_ENVIRONMENTS = "see `tidemill environment list`"
MAKE_WORKSPACE = "whoever runs the installation makes one: `python -m tidemill_registry workspace create`"
DEFAULT_ENVIRONMENT = "main"
MAX_ENVIRONMENTS = 1_000  # of one workspace
_SUFFIX = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?|")


async def prepare(engine: AsyncEngine, workspace: str) -> None:
    """Make a workspace, and the first environment of one that has none."""
    async with transaction(engine) as connection:
        made = upsert(Workspace).values(id=ids.new(ids.WORKSPACE), name=workspace)
        await connection.execute(made.on_conflict_do_nothing(index_elements=["name"]))
        owner = await _lock(connection, workspace)
        if not await connection.scalar(_count(owner)):
            row = {"id": ids.new(ids.ENVIRONMENT), "workspace_id": owner, "name": DEFAULT_ENVIRONMENT}
            await connection.execute(upsert(Environment).values(row))


def of_workspace(workspace: str) -> Select[str]:
    """Return the query for the ids of a workspace's environments: what every other query is limited to."""
    return (
        select(Environment.id)
        .join(Workspace, Environment.workspace_id == Workspace.id)
        .where(Workspace.name == workspace)
    )


async def find(connection: AsyncConnection, workspace: str, name: str, *, hold: bool = False) -> str:
    """Return the id of an environment; `NotFoundError`. With `hold` it stays until the transaction ends."""
    checks.check_name("an environment", name)
    query = of_workspace(workspace).where(Environment.name == name)
    if hold:
        query = query.with_for_update(key_share=True, read=True, of=Environment)
    found = await connection.scalar(query)
    if found is None:
        raise NotFoundError(
            f"there is no environment {name!r}", hint=f"make it with `tidemill environment create {name}`"
        )
    return found


async def list_all(engine: AsyncEngine, workspace: str) -> EnvironmentList:
    """Return the environments of a workspace, by name."""
    async with transaction(engine) as connection:
        rows = await connection.execute(_infos(workspace).order_by(Environment.name))
        return EnvironmentList(tuple(_info(row) for row in rows))


async def create(engine: AsyncEngine, workspace: str, request: CreateEnvironment) -> EnvironmentInfo:
    """Make an environment. Without a suffix it gets one that follows from its name."""
    checks.check_name("an environment", request.name)
    suffix = _checked_suffix(request.web_suffix or suffix_of(request.name))
    async with transaction(engine) as connection:
        owner = await _lock(connection, workspace)
        if (await connection.scalar(_count(owner)) or 0) >= MAX_ENVIRONMENTS:
            raise InvalidError(f"a workspace has at most {MAX_ENVIRONMENTS:,} environments")
        await _refuse_taken(connection, owner, name=request.name, suffix=suffix)
        values = {"id": ids.new(ids.ENVIRONMENT), "workspace_id": owner, "name": request.name}
        await connection.execute(upsert(Environment).values(web_suffix=suffix, **values))
        return await _one(connection, workspace, request.name)


async def change(engine: AsyncEngine, workspace: str, request: UpdateEnvironment) -> EnvironmentInfo:
    """Rename an environment, or give it another suffix."""
    new_name = request.new_name or request.name
    checks.check_name("an environment", new_name)
    async with transaction(engine) as connection:
        owner = await _lock(connection, workspace)
        before = await _one(connection, workspace, request.name)
        suffix = before.web_suffix if request.web_suffix is None else _checked_suffix(request.web_suffix)
        await _refuse_taken(connection, owner, name=new_name, suffix=suffix, but=before.environment_id)
        changed = update(Environment).where(Environment.id == before.environment_id)
        await connection.execute(changed.values(name=new_name, web_suffix=suffix))
        if new_name != request.name:
            await _retell(connection, before.environment_id, new_name)
        return await _one(connection, workspace, new_name)


async def _retell(connection: AsyncConnection, environment_id: str, name: str) -> None:
    """Write a new name into the records of the environment's pools: containers ask there by default."""
    living = (
        select(App.id)
        .where(App.environment_id == environment_id, App.state != "stopped")
        .order_by(App.id)
        .with_for_update()
    )
    for app in (await connection.scalars(living)).all():
        query = select(PoolRow.id, PoolRow.record).where(PoolRow.app_id == app)
        rows = (await connection.execute(query)).all()
        renamed = [(row.id, replace(records.pool(row.record), environment=name)) for row in rows]
        written = [{"pool": pool_id, "new_record": records.encode(pool)} for pool_id, pool in renamed]
        if written:
            statement = update(PoolRow).where(PoolRow.id == bindparam("pool"))
            await connection.execute(statement.values(record=bindparam("new_record")), written)
            told = [outbox.put(row["pool"], row["new_record"]) for row in written]
            await outbox.enqueue(connection, told)


async def lock_for_deletion(connection: AsyncConnection, workspace: str, request: DeleteEnvironment) -> str:
    """Return the id of an environment that may be deleted: nobody else adds anything to it any more.

    `ConflictError` for the last one.
    """
    owner = await _lock(connection, workspace)
    query = of_workspace(workspace).where(Environment.name == request.name)
    found = await connection.scalar(query.with_for_update(of=Environment))
    if found is None:
        raise NotFoundError(f"there is no environment {request.name!r}", hint=SEE_ENVIRONMENTS)
    if await connection.scalar(_count(owner)) == 1:
        raise ConflictError(f"{request.name!r} is the last environment of the workspace")
    return found


async def remove(connection: AsyncConnection, environment_id: str) -> None:
    """Delete an environment whose apps are stopped, with their records and its secrets."""
    await connection.execute(delete(App).where(App.environment_id == environment_id))
    await connection.execute(delete(Environment).where(Environment.id == environment_id))


def suffix_of(name: str) -> str:
    """Return what stands for an environment in host names unless it is told."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:32].strip("-")


def _checked_suffix(suffix: str) -> str:
    if not _SUFFIX.fullmatch(suffix):
        raise InvalidError(
            f"not a suffix for an environment: {suffix!r}",
            hint="a suffix is up to 32 lower-case letters, digits and '-' between them",
        )
    return suffix


async def _lock(connection: AsyncConnection, workspace: str) -> str:
    """Return the id of a workspace; nobody else changes which environments it has meanwhile."""
    query = select(Workspace.id).where(Workspace.name == workspace)
    owner = await connection.scalar(query.with_for_update(key_share=True))
    if owner is None:
        raise NotFoundError(f"there is no workspace {workspace!r}", hint=MAKE_WORKSPACE)
    return owner


def _count(owner: str) -> Select[int]:
    return select(func.count()).select_from(Environment).where(Environment.workspace_id == owner)


async def _refuse_taken(
    connection: AsyncConnection, owner: str, *, name: str, suffix: str, but: str = ""
) -> None:
    query = select(Environment.name, Environment.web_suffix).where(
        Environment.workspace_id == owner, Environment.id != but
    )
    for other in await connection.execute(query):
        if other.name == name:
            raise AlreadyExistsError(f"there is an environment {name!r} already")
        if other.web_suffix == suffix:
            raise AlreadyExistsError(
                f"the environment {other.name!r} has the suffix {suffix!r} already",
                hint="give another one with --set-web-suffix",
            )


async def _one(connection: AsyncConnection, workspace: str, name: str) -> EnvironmentInfo:
    row = (await connection.execute(_infos(workspace).where(Environment.name == name))).first()
    if row is None:
        raise NotFoundError(f"there is no environment {name!r}", hint=SEE_ENVIRONMENTS)
    return _info(row)


def _infos(workspace: str) -> Select[*tuple[object, ...]]:
    apps = (
        select(func.count())
        .select_from(App)
        .where(App.environment_id == Environment.id, App.state == "deployed")
        .scalar_subquery()
    )
    return select(*Environment.__table__.columns, apps.label("apps")).where(
        Environment.id.in_(of_workspace(workspace))
    )


def _info(row: Row[*tuple[object, ...]]) -> EnvironmentInfo:
    return EnvironmentInfo(row.id, row.name, row.created_at.timestamp(), row.web_suffix, row.apps)
