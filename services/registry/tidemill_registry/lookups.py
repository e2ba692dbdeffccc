"""Questions about apps and functions: one of them by name or id, or a page of many."""

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Integer, Row, Select, bindparam, exists, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire.apps import AppDetails, AppInfo, AppList, GetApp, ListApps
from tidemill._wire.control import FunctionHandle, GetFunction
from tidemill._wire.deploying import AppPage, FindApps, FindFunctions, FunctionInfo, FunctionPage
from tidemill._wire.specs import Parameter
from tidemill.exception import ConflictError, InvalidError, NotFoundError
from tidemill_registry import checks, environments, pages, records, tokens
from tidemill_registry.database import question, transaction
from tidemill_registry.decisions import LIFE
from tidemill_registry.environments import of_workspace
from tidemill_registry.schema import (
    App,
    Deployment,
    DeploymentFunction,
    Environment,
    Function,
    Outbox,
    PoolRow,
    Workspace,
)

SEE_APPS = "`tidemill app list` shows those there are, with --all stopped ones too"
SEE_HISTORY = "`tidemill app history` shows its versions"
SEE_FUNCTIONS = "`tidemill app info` shows its functions"
GONE = "its app may have been stopped"

_APP_ID = re.compile(r"ap-[0-9a-z]{26}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEPLOYED = App.state == literal("deployed", literal_execute=True)


# --- one app, one function


async def app_id(connection: AsyncConnection, workspace: str, app: str, environment: str) -> str:
    """Return the id of an app that is named by its id, or by its name if it is deployed; `NotFoundError`."""
    query = select(App.id).join(Environment, App.environment_id == Environment.id)
    query = query.where(Environment.id.in_(of_workspace(workspace)))
    if _APP_ID.fullmatch(app):
        query, what = query.where(App.id == app), f"there is no app {app!r}"
    else:
        query = query.where(App.name == app, Environment.name == environment, _DEPLOYED)
        what = f"there is no deployed app {app!r} in the environment {environment!r}"
    found = await connection.scalar(query)
    if found is None:
        raise NotFoundError(what, hint=SEE_APPS)
    return found


async def check_seen(connection: AsyncConnection, workspace: str, app_id: str, seen: AppInfo | None) -> None:
    """Refuse to change an app, whose row is locked, that is not as it was seen; `ConflictError`."""
    if seen is None:
        return
    row = (await connection.execute(_infos(workspace).where(App.id == app_id))).first()
    if row is None or _info(row) != seen:
        raise ConflictError(f"the app {app_id} has changed since", hint="look at it again")


async def get_function(
    engine: AsyncEngine, workspace: str, request: GetFunction
) -> tuple[FunctionHandle, bool]:
    """Return the handle of a function, and whether NATS must still be told of its pool.

    It is one of a deployed app, of the present or of one version, unless it is asked for by its own id.
    """
    given = {"workspace": workspace, "version": request.version}
    if request.function_id:
        query, given["id"] = _function_by_id(pinned=request.version is not None), request.function_id
    else:
        query = _function_by_name(pinned=request.version is not None)
        outer = request.name.rpartition(".")[0]
        given |= {"app": request.app_name, "environment": request.environment}
        given |= {"name": request.name, "outer": outer}
    async with question(engine) as connection:
        row = (await connection.execute(query, given)).first()
        if row is None:
            raise await _no_function(connection, workspace, request)
    handle = records.pool(row.record).handles[row.name]
    return _method_of(handle, request), row.pending


# Made once each: every look-up asks one of them, and to make it takes longer than to be answered.


@cache
def _function_by_id(*, pinned: bool) -> Select[*tuple[Any, ...]]:
    return _served_functions(pinned=pinned).where(Function.id == bindparam("id"), App.state != "stopped")


@cache
def _function_by_name(*, pinned: bool) -> Select[*tuple[Any, ...]]:
    """Return the query for a function by its name; a method is found by that of its class."""
    named = Function.name.in_((bindparam("name"), bindparam("outer")))
    return (
        _served_functions(pinned=pinned)
        .where(App.name == bindparam("app"), _DEPLOYED)
        .where(Environment.name == bindparam("environment"), named)
        .order_by(func.length(Function.name).desc())
    )


def _served_functions(*, pinned: bool) -> Select[*tuple[Any, ...]]:
    """Return the query for functions and the pools that serve them, in the present or one version."""
    version = bindparam("version", type_=Integer) if pinned else App.version
    pending = exists().where(Outbox.key == PoolRow.id)
    return (
        select(PoolRow.record, Function.name, pending.label("pending"))
        .join(DeploymentFunction, DeploymentFunction.pool_id == PoolRow.id)
        .join(Function, DeploymentFunction.function_id == Function.id)
        .join(App, DeploymentFunction.app_id == App.id)
        .join(Environment, App.environment_id == Environment.id)
        .join(Workspace, Environment.workspace_id == Workspace.id)
        .where(DeploymentFunction.version == version, Workspace.name == bindparam("workspace"))
    )


def _method_of(handle: FunctionHandle, request: GetFunction) -> FunctionHandle:
    """Return the handle of a method of a class, if one is asked for."""
    if request.function_id or request.name == handle.name:
        return handle
    if handle.methods is None:
        raise NotFoundError(f"the app {request.app_name!r} has no function {request.name!r}")
    method = request.name.removeprefix(f"{handle.name}.")
    if handle.parameters and any(Parameter(*each).required for each in handle.parameters):
        raise InvalidError(
            f"{handle.name} needs parameters", hint="find it with Cls.from_name and make an object"
        )
    try:
        return handle.of_method(method)
    except KeyError:
        raise NotFoundError(f"the class {handle.name} has no method {method!r}") from None


async def _no_function(connection: AsyncConnection, workspace: str, request: GetFunction) -> NotFoundError:
    """Return what to say of a function that was not found: the app may not be there either."""
    which = "" if request.version is None else f" in version {request.version}"
    if request.function_id:
        return NotFoundError(f"there is no function {request.function_id!r}{which}", hint=GONE)
    app = await app_id(connection, workspace, request.app_name, request.environment)
    words = f"the app {request.app_name!r} in the environment {request.environment!r}"
    if request.version is not None:
        recorded = select(Deployment.functions).where(
            Deployment.app_id == app, Deployment.version == request.version
        )
        names = await connection.scalar(recorded)
        if names is None:
            return NotFoundError(f"{words} has no version {request.version}", hint=SEE_HISTORY)
        if request.name in names:
            what = f"{words} no longer keeps the functions of version {request.version}"
            return NotFoundError(what, hint="deploy its code again")
    return NotFoundError(f"{words} has no function {request.name!r}{which}", hint=SEE_FUNCTIONS)


async def get_app(engine: AsyncEngine, workspace: str, request: GetApp) -> AppDetails:
    """Return one app with the handles of its present functions."""
    if bool(request.app_id) == bool(request.name):
        raise InvalidError("give the id of an app or the name of a deployed one")
    async with transaction(engine) as connection:
        found = request.app_id
        if not found:
            found = await app_id(connection, workspace, request.name, request.environment)
        row = (await connection.execute(_infos(workspace).where(App.id == found))).first()
        if row is None:
            raise NotFoundError(f"there is no app {found!r}", hint=SEE_APPS)
        serving = (
            select(PoolRow.record)
            .join(DeploymentFunction, DeploymentFunction.pool_id == PoolRow.id)
            .where(DeploymentFunction.app_id == found, DeploymentFunction.version == row.version)
        )
        pools = [records.pool(record) for record in await connection.scalars(serving)]
    return AppDetails(_info(row), {pool.spec.name: pool.handles[pool.spec.name] for pool in pools})


# --- pages of many


async def list_apps(engine: AsyncEngine, workspace: str, request: ListApps) -> AppList:
    """Return the apps of an environment, newest first."""
    states = tuple(LIFE["new"]) + (("stopped",) if request.include_stopped else ())
    wanted = FindApps(environment=request.environment, states=states, limit=request.limit)
    return AppList((await find_apps(engine, workspace, wanted)).apps)


class _AppCursor(NamedTuple):
    """Where a page of apps ends: when the last was made, in microseconds, and its id."""

    created: int
    id: str


async def find_apps(engine: AsyncEngine, workspace: str, request: FindApps) -> AppPage:
    """Return a page of the apps that fit a request, newest first."""
    checks.check_limit(request.limit)
    checks.check_tags(request.tags)
    query = _infos(workspace).where(App.state.in_(request.states))
    if request.name:
        query = query.where(App.name.contains(request.name, autoescape=True))
    if request.tags:
        query = query.where(App.tags.contains(literal(request.tags, JSONB)))
    if after := pages.read(request.cursor, _AppCursor):
        made = literal(_EPOCH + timedelta(microseconds=after.created))
        query = query.where(tuple_(App.created_at, App.id) < tuple_(made, literal(after.id)))
    async with transaction(engine) as connection:
        if request.environment:
            environment = await environments.find(connection, workspace, request.environment)
            query = query.where(App.environment_id == environment)
        query = query.order_by(App.created_at.desc(), App.id.desc()).limit(request.limit + 1)
        rows = (await connection.execute(query)).all()
    return AppPage(tuple(map(_info, rows[: request.limit])), pages.after(rows, request.limit, _end_of))


def _end_of(row: Row[*tuple[Any, ...]]) -> _AppCursor:
    return _AppCursor((row.created_at - _EPOCH) // timedelta(microseconds=1), row.id)


class _FunctionCursor(NamedTuple):
    """Where a page of functions ends."""

    app_id: str
    name: str


async def find_functions(engine: AsyncEngine, workspace: str, request: FindFunctions) -> FunctionPage:
    """Return a page of the present functions of apps that live, by app and name."""
    checks.check_limit(request.limit)
    query = (
        select(App.id.label("app_id"), App.name.label("app_name"), App.version, PoolRow.record)
        .add_columns(Environment.name.label("environment"), Function.name)
        .join(DeploymentFunction, _serves_now())
        .join(Function, DeploymentFunction.function_id == Function.id)
        .join(PoolRow, DeploymentFunction.pool_id == PoolRow.id)
        .join(Environment, App.environment_id == Environment.id)
        .where(App.state != "stopped", Environment.id.in_(of_workspace(workspace)))
    )
    if after := pages.read(request.cursor, _FunctionCursor):
        query = query.where(tuple_(App.id, Function.name) > tuple_(literal(after[0]), literal(after[1])))
    async with transaction(engine) as connection:
        if request.environment:
            environment = await environments.find(connection, workspace, request.environment)
            query = query.where(App.environment_id == environment)
        if request.app:
            where = request.environment or environments.DEFAULT_ENVIRONMENT
            query = query.where(App.id == await app_id(connection, workspace, request.app, where))
        query = query.order_by(App.id, Function.name).limit(request.limit + 1)
        rows = (await connection.execute(query)).all()
    functions = tuple(_function_info(row) for row in rows[: request.limit])
    cursor = pages.after(rows, request.limit, lambda row: _FunctionCursor(row.app_id, row.name))
    return FunctionPage(functions, cursor)


def _serves_now() -> Any:
    return (DeploymentFunction.app_id == App.id) & (DeploymentFunction.version == App.version)


def _function_info(row: Row[*tuple[Any, ...]]) -> FunctionInfo:
    pool = records.pool(row.record)
    return FunctionInfo(
        function_id=pool.function_id,
        name=row.name,
        app_id=row.app_id,
        app_name=row.app_name,
        environment=row.environment,
        pool=pool.id,
        version=row.version,
        spec=pool.spec,
        web_urls=pool.handles[row.name].web_labels(),  # what they lead to is the service's to say
    )


def _infos(workspace: str) -> Select[*tuple[Any, ...]]:
    functions = (
        select(func.count())
        .select_from(DeploymentFunction)
        .where(DeploymentFunction.app_id == App.id, DeploymentFunction.version == App.version)
        .scalar_subquery()
    )
    return (
        select(*App.__table__.columns, Environment.name.label("environment"), functions.label("functions"))
        .add_columns(
            tokens.shown(App.created_by).label("author"), tokens.shown(App.stopped_by).label("stopper")
        )
        .join(Environment, App.environment_id == Environment.id)
        .where(Environment.id.in_(of_workspace(workspace)))
    )


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
        created_by=row.author,
        stopped_by=row.stopper,
    )
