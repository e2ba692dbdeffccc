"""Questions about apps and functions."""

from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import coding
from tidemill._wire.control import (
    AppDetails,
    AppInfo,
    AppList,
    FunctionHandle,
    GetApp,
    GetFunction,
    ListApps,
    Pool,
)
from tidemill.exception import InvalidError, NotFoundError
from tidemill_registry.apps import Apps, is_of
from tidemill_registry.database import transaction
from tidemill_registry.schema import App, DeploymentFunction, Environment, Function, PoolRow

MAX_LISTED = 1_000


async def get_function(
    engine: AsyncEngine, apps: Apps, workspace: str, request: GetFunction
) -> FunctionHandle:
    """Return the handle of a deployed app's function, of the present or of one version."""
    async with transaction(engine) as connection:
        environment = await apps.environment(connection, workspace, request.environment)
        app = await _deployed(connection, environment, request.app_name, request.environment)
        version = app.version if request.version is None else request.version
        query = _records(app.id, version).where(Function.name == request.name)
        record = (await connection.execute(query)).first()
    if record is None:
        which = "" if request.version is None else f" in version {version}"
        raise NotFoundError(f"the app {request.app_name!r} has no function {request.name!r}{which}")
    pool = coding.decode(Pool, record.record)
    return pool.handles[request.name]


async def list_apps(engine: AsyncEngine, apps: Apps, workspace: str, request: ListApps) -> AppList:
    """Return the apps of an environment, newest first."""
    if not 1 <= request.limit <= MAX_LISTED:
        raise InvalidError(f"limit must be between 1 and {MAX_LISTED:,}")
    async with transaction(engine) as connection:
        environment = await apps.environment(connection, workspace, request.environment)
        query = _infos().where(App.environment_id == environment)
        if not request.include_stopped:
            query = query.where(App.state != "stopped")
        rows = await connection.execute(query.order_by(App.created_at.desc()).limit(request.limit))
        return AppList(tuple(_info(row) for row in rows))


async def get_app(engine: AsyncEngine, apps: Apps, workspace: str, request: GetApp) -> AppDetails:
    """Return one app with the handles of its present functions."""
    if bool(request.app_id) == bool(request.name):
        raise InvalidError("give the id of an app or the name of a deployed one")
    async with transaction(engine) as connection:
        app_id = request.app_id
        if not app_id:
            environment = await apps.environment(connection, workspace, request.environment)
            app_id = (await _deployed(connection, environment, request.name, request.environment)).id
        row = (await connection.execute(_infos().where(App.id == app_id, is_of(workspace)))).first()
        if row is None:
            raise NotFoundError(f"there is no app {app_id!r}")
        records = await connection.execute(_records(app_id, row.version))
        pools = [coding.decode(Pool, record.record) for record in records]
    return AppDetails(_info(row), {pool.spec.name: pool.handles[pool.spec.name] for pool in pools})


async def _deployed(
    connection: AsyncConnection, environment_id: str, name: str, environment: str
) -> Row[str, int]:
    query = select(App.id, App.version).where(
        App.environment_id == environment_id, App.name == name, App.state == "deployed"
    )
    app = (await connection.execute(query)).first()
    if app is None:
        raise NotFoundError(f"there is no deployed app {name!r} in the environment {environment!r}")
    return app


def _records(app_id: str, version: int) -> Select[bytes]:
    """Return the query for the records of a version's pools."""
    return (
        select(PoolRow.record)
        .join(DeploymentFunction, DeploymentFunction.pool_id == PoolRow.id)
        .join(Function, DeploymentFunction.function_id == Function.id)
        .where(DeploymentFunction.app_id == app_id, DeploymentFunction.version == version)
    )


def _infos() -> Select[*tuple[Any, ...]]:
    functions = (
        select(func.count())
        .select_from(DeploymentFunction)
        .where(DeploymentFunction.app_id == App.id, DeploymentFunction.version == App.version)
        .scalar_subquery()
    )
    return select(
        *App.__table__.columns, Environment.name.label("environment"), functions.label("functions")
    ).join(Environment, App.environment_id == Environment.id)


def _info(row: Row[*tuple[Any, ...]]) -> AppInfo:
    return AppInfo(
        app_id=row.id,
        name=row.name,
        description=row.description,
        state=row.state,
        environment=row.environment,
        created=row.created_at.timestamp(),
        version=row.version,
        functions=row.functions,
        stopped=row.stopped_at.timestamp() if row.stopped_at else None,
        stop_reason=row.stop_reason,
        tags=row.tags,
    )
