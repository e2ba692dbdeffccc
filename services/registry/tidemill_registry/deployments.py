"""Versions of apps that stay: deployed, rolled back, rolled over, listed."""

from typing import NamedTuple

from sqlalchemy import Text, any_, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import ids
from tidemill._wire.deploying import (
    AppDeployed,
    DeployApp,
    DeploymentInfo,
    DeploymentList,
    ListDeployments,
    RollbackApp,
    RolloverApp,
)
from tidemill.exception import ConflictError, NotFoundError
from tidemill_registry import checks, decisions, environments, lookups, pages, publishing, tokens
from tidemill_registry.database import Clock, transaction
from tidemill_registry.decisions import AppState, Publication
from tidemill_registry.publishing import Details
from tidemill_registry.schema import App, Deployment, DeploymentFunction, Environment, PoolRow


async def deploy(
    engine: AsyncEngine, workspace: str, request: DeployApp, clock: Clock, by: str = ""
) -> AppDeployed:
    """Make the next version of a deployed app, and the app if it is not there.

    Everything happens in one transaction under the lock of the app's row: of two deployments at the same
    time one waits for the other.
    """
    checks.check_app(request.name, "deployed", request.description, request.tags or {})
    checks.check_deployment(request.strategy, request.tag, request.client_version)
    checks.check_functions(request.functions)
    details = Details(request.tag, request.strategy, request.client_version, by)
    async with transaction(engine) as connection:
        app, differs = await _app_to_deploy(connection, workspace, request, by)
        publication = await publishing.publish_in(
            connection, app, request.functions, clock, details, new_version=differs
        )
    return _deployed(app, publication)


async def _app_to_deploy(
    connection: AsyncConnection, workspace: str, request: DeployApp, by: str
) -> tuple[AppState, bool]:
    """Return the app with its row locked, and whether its tags or the deployment's tag will differ."""
    environment = await environments.find(connection, workspace, request.environment, hold=True)
    made = upsert(App).values(
        id=ids.new(ids.APP),
        environment_id=environment,
        name=request.name,
        description=request.description or request.name,
        state="deployed",
        tags=request.tags or {},
        created_by=by,
    )
    statement = made.on_conflict_do_update(
        index_elements=["environment_id", "name"],
        index_where=App.state == literal("deployed", literal_execute=True),
        set_={"description": made.excluded.description if request.description else App.description},
    )
    suffix = select(Environment.web_suffix).where(Environment.id == environment).scalar_subquery()
    returning = statement.returning(App.id, App.version, App.tags, suffix.label("suffix"))
    row = (await connection.execute(returning)).one()
    app = AppState(row.id, request.name, workspace, request.environment, "deployed", row.version, row.suffix)
    retagged = request.tags is not None and row.tags != request.tags
    if retagged:
        await connection.execute(update(App).where(App.id == app.id).values(tags=request.tags))
    return app, retagged or await _is_tagged_anew(connection, app, request.tag)


async def _is_tagged_anew(connection: AsyncConnection, app: AppState, tag: str) -> bool:
    if not tag:
        return False
    present = select(Deployment.tag).where(Deployment.app_id == app.id, Deployment.version == app.version)
    return await connection.scalar(present) != tag


async def roll_back(
    engine: AsyncEngine, workspace: str, request: RollbackApp, clock: Clock, by: str = ""
) -> AppDeployed:
    """Make a version with the functions of an earlier one: by default the newest that had others."""
    checks.check_deployment(request.strategy)
    async with transaction(engine) as connection:
        app_id = await lookups.app_id(connection, workspace, request.app, request.environment)
        app = await publishing.locked_app(connection, workspace, app_id, "roll back")
        await lookups.check_seen(connection, workspace, app_id, request.seen)
        version, publication = await restored(connection, app, request)
        details = Details(strategy=request.strategy, deployed_by=by, rolled_back_to=version)
        await publishing.write(connection, app, publication, details, clock)
    return _deployed(app, publication)


async def restored(
    connection: AsyncConnection, app: AppState, request: RollbackApp
) -> tuple[int, Publication]:
    """Return to which version a locked app goes back, and what that makes of it."""
    version = request.version or await _version_before(connection, app)
    pools = await _pools_of(connection, app, version)
    asked_for = PoolRow.id == any_(literal(pools, ARRAY(Text)))
    known = await publishing.known(connection, app.id, asked_for)
    return version, decisions.restore(app, known, pools, strategy=request.strategy)


async def _version_before(connection: AsyncConnection, app: AppState) -> int:
    """Return the newest version whose pools are others than those of the present one."""
    served = select(DeploymentFunction.pool_id).where(DeploymentFunction.app_id == app.id)
    versions = (
        select(Deployment.version)
        .where(Deployment.app_id == app.id, Deployment.version < app.version)
        .order_by(Deployment.version.desc())
    )
    present = set(await connection.scalars(served.where(DeploymentFunction.version == app.version)))
    for version in await connection.scalars(versions.limit(decisions.MAX_KEPT_VERSIONS)):
        pools = set(await connection.scalars(served.where(DeploymentFunction.version == version)))
        if pools != present and pools:
            return version
    raise ConflictError(f"the app {app.name!r} has no earlier version with other functions")


async def _pools_of(connection: AsyncConnection, app: AppState, version: int) -> list[str]:
    """Return the pools of a version, all of which must still be kept."""
    names = await connection.scalar(
        select(Deployment.functions).where(Deployment.app_id == app.id, Deployment.version == version)
    )
    if names is None:
        raise NotFoundError(f"the app {app.name!r} has no version {version}", hint=lookups.SEE_HISTORY)
    query = select(DeploymentFunction.pool_id).where(
        DeploymentFunction.app_id == app.id, DeploymentFunction.version == version
    )
    pools = list(await connection.scalars(query))
    if len(pools) != len(names):
        raise NotFoundError(
            f"version {version} of the app {app.name!r} is recorded, but its functions are no longer kept",
            hint="deploy its code again",
        )
    return pools


async def roll_over(
    engine: AsyncEngine, workspace: str, request: RolloverApp, clock: Clock, by: str = ""
) -> AppDeployed:
    """Make a version with the same functions, whose containers are all replaced."""
    checks.check_deployment(request.strategy)
    async with transaction(engine) as connection:
        app_id = await lookups.app_id(connection, workspace, request.app, request.environment)
        app = await publishing.locked_app(connection, workspace, app_id, "roll over")
        await lookups.check_seen(connection, workspace, app_id, request.seen)
        known = await publishing.known(connection, app.id, literal(False))
        publication = decisions.roll_over(app, known, strategy=request.strategy)
        details = Details(strategy=request.strategy, deployed_by=by)
        await publishing.write(connection, app, publication, details, clock)
    return _deployed(app, publication)


def _deployed(app: AppState, publication: Publication) -> AppDeployed:
    return AppDeployed(
        app_id=app.id,
        version=publication.version,
        handles=publication.handles,
        skipped=publication.version == app.version,
        removed=publication.removed,
        replaced=publication.replaced,
    )


class _Cursor(NamedTuple):
    """Where a page of versions ends."""

    version: int


async def list_versions(engine: AsyncEngine, workspace: str, request: ListDeployments) -> DeploymentList:
    """Return a page of the versions of an app, newest first."""
    checks.check_limit(request.limit)
    after = pages.read(request.cursor, _Cursor)
    async with transaction(engine) as connection:
        app_id = await lookups.app_id(connection, workspace, request.app, request.environment)
        present = await connection.scalar(select(App.version).where(App.id == app_id))
        query = select(*Deployment.__table__.columns, tokens.shown(Deployment.deployed_by).label("author"))
        query = query.where(Deployment.app_id == app_id)
        if after is not None:
            query = query.where(Deployment.version < after.version)
        query = query.order_by(Deployment.version.desc()).limit(request.limit + 1)
        rows = (await connection.execute(query)).all()
    infos = tuple(
        DeploymentInfo(
            version=row.version,
            created=row.created_at.timestamp(),
            tag=row.tag,
            strategy=row.strategy,
            client_version=row.client_version,
            deployed_by=row.author,
            rolled_back_to=row.rolled_back_to,
            functions=tuple(row.functions),
            current=row.version == present,
        )
        for row in rows[: request.limit]
    )
    return DeploymentList(infos, pages.after(rows, request.limit, lambda row: _Cursor(row.version)))
