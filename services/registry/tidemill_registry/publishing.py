"""Making a version of an app: read what is there, decide, write it with what NATS must be told."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, LargeBinary, and_, any_, bindparam, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import coding, ids, subjects
from tidemill._wire.apps import CreateApp, FunctionsPublished, PublishFunctions
from tidemill._wire.control import AppEvent
from tidemill._wire.specs import FunctionSpec, Source
from tidemill.exception import NotFoundError
from tidemill_common import streams
from tidemill_registry import (
    checks,
    decisions,
    image_recipes,
    lookups,
    outbox,
    records,
    routes,
    secrets,
    siblings,
    timetable,
    variants,
)
from tidemill_registry.apps import Apps
from tidemill_registry.database import Clock, transaction
from tidemill_registry.decisions import (
    AppState,
    KnownFunction,
    KnownPool,
    Publication,
    ServedPool,
    Superseded,
)
from tidemill_registry.schema import (
    App,
    Deployment,
    DeploymentFunction,
    Environment,
    Function,
    PoolRow,
    PoolSecret,
    Workspace,
)


class Details(NamedTuple):
    """What is recorded of a version beside its functions. `deployed_by` is the id of a token."""

    tag: str = ""
    strategy: str = "rolling"
    client_version: str = ""
    deployed_by: str = ""
    rolled_back_to: int | None = None


_UNTOLD = Details()


async def publish(
    engine: AsyncEngine, workspace: str, request: PublishFunctions, clock: Clock, by: str = ""
) -> FunctionsPublished:
    """Make `request.functions` the functions of the app; the same again changes nothing."""
    checks.check_functions(request.functions)
    async with transaction(engine) as connection:
        app = await locked_app(connection, workspace, request.app_id, "publish functions for")
        details = Details(deployed_by=by)
        published = await publish_in(connection, app, request.functions, clock, details)
        return FunctionsPublished(published.handles)


async def publish_in(
    connection: AsyncConnection,
    app: AppState,
    functions: Sequence[FunctionSpec],
    clock: Clock,
    details: Details = _UNTOLD,
    *,
    new_version: bool = False,
) -> Publication:
    """Publish for an app whose row is locked, in a transaction that the caller ends."""
    publication = await decide(connection, app, functions, details.strategy, new_version=new_version)
    await write(connection, app, publication, details, clock)
    return publication


async def decide(
    connection: AsyncConnection,
    app: AppState,
    functions: Sequence[FunctionSpec],
    strategy: str = "rolling",
    *,
    new_version: bool = False,
) -> Publication:
    """Return what publishing functions makes of an app whose row is locked."""
    functions = await image_recipes.settle(connection, app.workspace, app.environment, functions)
    return decisions.publish(
        app,
        await known(connection, app.id, _asked_for(functions)),
        functions,
        shards=streams.SHARDS,
        first_shard=random.randrange(streams.SHARDS),  # noqa: S311  # spreads load, hides nothing
        strategy=strategy,
        new_version=new_version,
    )


async def rehearse(engine: AsyncEngine, workspace: str, apps: Apps, clock: Clock) -> None:
    """Go through the making of an app once and take it back.

    Statements are compiled and prepared at their first use, which costs the first real one 30 ms.
    """
    async with engine.connect() as connection:
        made = await apps.create_in(connection, workspace, CreateApp(None, "rehearsal", "ephemeral"))
        app = await locked_app(connection, workspace, made.app_id, "publish functions for")
        function = FunctionSpec("rehearsal", Source(module="rehearsal", qualname="rehearsal"))
        await publish_in(connection, app, (function,), clock)
        await connection.rollback()


async def locked_app(connection: AsyncConnection, workspace: str, app_id: str, action: str) -> AppState:
    """Return the app, which nobody else changes until this transaction ends.

    `ConflictError` if `action` cannot be done to it as it is.
    """
    query = (
        select(App.id, App.name, Environment.name.label("environment"), App.state, App.version)
        .add_columns(App.stop_reason, Environment.web_suffix)
        .join(Environment, App.environment_id == Environment.id)
        .join(Workspace, Environment.workspace_id == Workspace.id)
        .where(App.id == app_id, Workspace.name == workspace)
        .with_for_update(of=App)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        raise NotFoundError(f"there is no app {app_id!r}", hint=lookups.SEE_APPS)
    decisions.check_doable(action, app_id, row.state, row.stop_reason)
    return AppState(row.id, row.name, workspace, row.environment, row.state, row.version, row.web_suffix)


def _asked_for(functions: Sequence[FunctionSpec]) -> ColumnElement[bool]:
    wanted = literal([decisions.digest(spec) for spec in functions], ARRAY(LargeBinary))
    return PoolRow.digest == any_(wanted)


async def known(
    connection: AsyncConnection, app_id: str, others: ColumnElement[bool]
) -> dict[str, KnownFunction]:
    """Return the app's functions with the pools that matter: the present ones, and some `others`."""
    matters = and_(PoolRow.variant_of.is_(None), or_(PoolRow.superseded_at.is_(None), others))
    query = (
        select(Function.id, Function.name, PoolRow.id.label("pool"), PoolRow.digest, PoolRow.record)
        .add_columns(PoolRow.superseded_at, PoolRow.served_spec)
        .outerjoin(PoolRow, (PoolRow.function_id == Function.id) & matters)
        .where(Function.app_id == app_id)
    )
    found: dict[str, KnownFunction] = {}
    for row in await connection.execute(query):
        before = found[row.name].pools if row.name in found else ()
        if row.pool:
            current = row.superseded_at is None
            before = (*before, KnownPool(row.pool, row.digest, row.record, current, row.served_spec))
        found[row.name] = KnownFunction(row.id, row.name, before)
    return found


async def write(
    connection: AsyncConnection, app: AppState, publication: Publication, details: Details, clock: Clock
) -> None:
    """Write a publication. The order satisfies the constraints at every step.

    NATS is told in an order too: handles before the pools that have need of them, pools that serve before
    those that no longer do, timers and events last.
    """
    is_new = publication.version != app.version
    changed = [item for item in publication.served if item.changed]
    if not is_new and not changed:
        return
    await secrets.check_there(connection, app.workspace, [item.pool.spec for item in publication.served])
    await _supersede(connection, publication, clock)
    if publication.new_functions:
        made = publication.new_functions.items()
        rows = [{"id": function_id, "app_id": app.id, "name": name} for name, function_id in made]
        await connection.execute(insert(Function), rows)
    await _write_pools(connection, publication, clock)
    told = [siblings.told(app.id, publication.version, publication.handles)]
    told += [outbox.put(item.pool.id, item.record) for item in changed]
    told += [outbox.put(pool, retired.record) for pool, retired in publication.superseded.items()]
    bases = [item.pool for item in changed if item.known]
    bases += [records.pool(retired.record) for retired in publication.superseded.values()]
    told += await variants.follow(connection, bases)
    serving = [item.pool for item in publication.served]
    told += await routes.follow(connection, app.id, serving, lasting=app.state == "deployed")
    if is_new:
        await _write_version(connection, app, publication, details)
        told += await timetable.follow(connection, app.workspace, app.id, serving, publication.version)
        happened = await connection.scalar(select(clock()))
        assert happened is not None
        event = AppEvent(app.id, app.name, "published", happened.timestamp(), publication.version)
        told.append(outbox.event(subjects.event(app.workspace, "app", app.id), coding.encode(event)))
    await outbox.enqueue(connection, told)


async def _supersede(connection: AsyncConnection, publication: Publication, clock: Clock) -> None:
    if publication.superseded:
        statement = update(PoolRow).where(PoolRow.id == bindparam("pool"))
        await connection.execute(
            statement.values(
                superseded_at=clock(), record=bindparam("new_record"), served_spec=bindparam("spec")
            ),
            [
                {"pool": pool, "new_record": retired.record, "spec": retired.served_spec}
                for pool, retired in publication.superseded.items()
            ],
        )


async def insert_pools(
    connection: AsyncConnection,
    made: Sequence[ServedPool],
    retired: Mapping[str, Superseded],
    clock: Clock,
) -> None:
    """Store pools that are new; those that are `retired` do not serve yet."""
    rows = []
    for item in made:
        row = {
            "id": item.pool.id,
            "app_id": item.pool.app_id,
            "function_id": item.pool.function_id,
            "digest": item.digest,
            "capability": item.pool.capability,
            "shard": item.pool.shard,
            "record": item.record,
        }
        if retired:
            one = retired[item.pool.id]
            row |= {"record": one.record, "served_spec": one.served_spec}
        rows.append(row)
    if rows:
        statement = insert(PoolRow).values(superseded_at=clock()) if retired else insert(PoolRow)
        await connection.execute(statement, rows)
        await image_recipes.keep(connection, (item.pool for item in made))
    uses = [
        {"pool_id": item.pool.id, "secret_id": secret}
        for item in made
        for secret in dict.fromkeys(item.pool.spec.all_secrets)
    ]
    if uses:
        await connection.execute(insert(PoolSecret), uses)


async def _write_pools(connection: AsyncConnection, publication: Publication, clock: Clock) -> None:
    await insert_pools(connection, [item for item in publication.served if not item.known], {}, clock)
    changed = [item for item in publication.served if item.known and item.changed]
    if changed:
        await connection.execute(
            update(PoolRow)
            .where(PoolRow.id == bindparam("pool"))
            .values(superseded_at=None, served_spec=None, record=bindparam("new_record")),
            [{"pool": item.pool.id, "new_record": item.record} for item in changed],
        )


async def _write_version(
    connection: AsyncConnection, app: AppState, publication: Publication, details: Details
) -> None:
    version = publication.version
    row = {"id": ids.new(ids.DEPLOYMENT), "app_id": app.id, "version": version}
    named = {**details._asdict(), "functions": sorted(publication.handles)}
    await connection.execute(insert(Deployment).values(row | named))
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
