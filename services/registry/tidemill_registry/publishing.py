"""Publishing the functions of an app: read what is there, decide, write it with what NATS must be told."""

import random
from collections.abc import Sequence

from sqlalchemy import LargeBinary, any_, bindparam, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import (
    AppEvent,
    CreateApp,
    FunctionSpec,
    FunctionsPublished,
    PublishFunctions,
    Source,
)
from tidemill.exception import ConflictError, NotFoundError
from tidemill_common import streams
from tidemill_registry import decisions, outbox
from tidemill_registry.apps import Apps, stopped_message
from tidemill_registry.database import Clock, transaction
from tidemill_registry.decisions import AppState, KnownFunction, KnownPool, Publication
from tidemill_registry.schema import (
    App,
    Deployment,
    DeploymentFunction,
    Environment,
    Function,
    PoolRow,
    Workspace,
)


async def publish(
    engine: AsyncEngine, workspace: str, request: PublishFunctions, clock: Clock
) -> FunctionsPublished:
    """Make `request.functions` the functions of the app; the same again changes nothing."""
    async with transaction(engine) as connection:
        return await publish_in(connection, workspace, request, clock)


async def publish_in(
    connection: AsyncConnection, workspace: str, request: PublishFunctions, clock: Clock
) -> FunctionsPublished:
    """Publish in a transaction that the caller ends."""
    decisions.check_functions(request.functions)
    app = await _locked_app(connection, workspace, request.app_id)
    publication = decisions.publish(
        app,
        await _known(connection, app.id, request.functions),
        request.functions,
        shards=streams.SHARDS,
        first_shard=random.randrange(streams.SHARDS),  # noqa: S311  # spreads load, hides nothing
    )
    if publication.version != app.version or any(item.changed for item in publication.served):
        await _write(connection, app, publication, clock)
    return FunctionsPublished(publication.handles)


async def rehearse(engine: AsyncEngine, apps: Apps, workspace: str, clock: Clock) -> None:
    """Go through the making of an app once and take it back.

    Statements are compiled and prepared at their first use, which costs the first real one 30 ms.
    """
    async with engine.connect() as connection:
        app = await apps.create_in(connection, workspace, CreateApp(None, "rehearsal", "ephemeral"))
        function = FunctionSpec("rehearsal", Source(module="rehearsal", qualname="rehearsal"))
        await publish_in(connection, workspace, PublishFunctions(app.app_id, (function,)), clock)
        await connection.rollback()


async def _locked_app(connection: AsyncConnection, workspace: str, app_id: str) -> AppState:
    """Return the app, which nobody else changes until this transaction ends."""
    query = (
        select(
            App.id,
            App.name,
            Workspace.name.label("workspace"),
            Environment.name.label("environment"),
            App.state,
            App.version,
            App.stop_reason,
        )
        .join(Environment, App.environment_id == Environment.id)
        .join(Workspace, Environment.workspace_id == Workspace.id)
        .where(App.id == app_id, Workspace.name == workspace)
        .with_for_update(of=App)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFoundError(f"there is no app {app_id!r}")
    if row.state == "stopped":
        raise ConflictError(stopped_message(app_id, row.stop_reason))
    return AppState(row.id, row.name, row.workspace, row.environment, row.state, row.version)


async def _known(
    connection: AsyncConnection, app_id: str, functions: Sequence[FunctionSpec]
) -> dict[str, KnownFunction]:
    """Return the app's functions with the pools that matter: present ones, and those asked for again."""
    wanted = literal([decisions.digest(spec) for spec in functions], ARRAY(LargeBinary))
    matters = or_(PoolRow.superseded_at.is_(None), PoolRow.digest == any_(wanted))
    query = (
        select(Function.id, Function.name, PoolRow.id.label("pool"), PoolRow.digest, PoolRow.record)
        .add_columns(PoolRow.superseded_at)
        .outerjoin(PoolRow, (PoolRow.function_id == Function.id) & matters)
        .where(Function.app_id == app_id)
    )
    known: dict[str, KnownFunction] = {}
    for row in await connection.execute(query):
        before = known[row.name].pools if row.name in known else ()
        pool = KnownPool(row.pool, row.digest, row.record, row.superseded_at is None) if row.pool else None
        known[row.name] = KnownFunction(row.id, row.name, (*before, pool) if pool else before)
    return known


async def _write(connection: AsyncConnection, app: AppState, publication: Publication, clock: Clock) -> None:
    """Write a publication. The order satisfies the constraints at every step."""
    await _supersede(connection, publication, clock)
    if publication.new_functions:
        made = publication.new_functions.items()
        rows = [{"id": function_id, "app_id": app.id, "name": name} for name, function_id in made]
        await connection.execute(insert(Function), rows)
    await _write_pools(connection, publication)
    if publication.version != app.version:
        await _write_version(connection, app, publication)
    told = [outbox.put(item.pool.id, item.record) for item in publication.served if item.changed]
    told += [outbox.put(pool, record) for pool, record in publication.superseded.items()]
    if publication.version != app.version:
        happened = await connection.scalar(select(clock()))
        assert happened is not None
        event = AppEvent(app.id, app.name, "published", happened.timestamp(), publication.version)
        told.append(outbox.event(subjects.event(app.workspace, "app", app.id), coding.encode(event)))
    await outbox.enqueue(connection, told)


async def _supersede(connection: AsyncConnection, publication: Publication, clock: Clock) -> None:
    if publication.superseded:
        statement = update(PoolRow).where(PoolRow.id == bindparam("pool"))
        await connection.execute(
            statement.values(superseded_at=clock(), record=bindparam("new_record")),
            [{"pool": pool, "new_record": record} for pool, record in publication.superseded.items()],
        )


async def _write_pools(connection: AsyncConnection, publication: Publication) -> None:
    made = [item for item in publication.served if not item.known]
    if made:
        rows = [
            {
                "id": item.pool.id,
                "app_id": item.pool.app_id,
                "function_id": item.pool.function_id,
                "digest": item.digest,
                "capability": item.pool.capability,
                "shard": item.pool.shard,
                "record": item.record,
            }
            for item in made
        ]
        await connection.execute(insert(PoolRow), rows)
    changed = [item for item in publication.served if item.known and item.changed]
    if changed:
        await connection.execute(
            update(PoolRow)
            .where(PoolRow.id == bindparam("pool"))
            .values(superseded_at=None, record=bindparam("new_record")),
            [{"pool": item.pool.id, "new_record": item.record} for item in changed],
        )


async def _write_version(connection: AsyncConnection, app: AppState, publication: Publication) -> None:
    version = publication.version
    row = {"id": ids.new(ids.DEPLOYMENT), "app_id": app.id, "version": version}
    await connection.execute(insert(Deployment).values(row))
    if publication.served:
        rows = [
            {
                "app_id": app.id,
                "version": version,
                "function_id": item.pool.function_id,
                "pool_id": item.pool.id,
            }
            for item in publication.served
        ]
        await connection.execute(insert(DeploymentFunction), rows)
    await connection.execute(update(App).where(App.id == app.id).values(version=version))
