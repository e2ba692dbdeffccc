"""The life of an app: made, kept alive by its client, stopped."""

from typing import NamedTuple

from sqlalchemy import ColumnElement, CursorResult, any_, delete, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import coding, ids, subjects
from tidemill._wire.apps import AppCreated, AppInfo, CreateApp
from tidemill._wire.control import AppEvent
from tidemill._wire.deploying import LookupApp, StopDeployed
from tidemill._wire.environments import DeleteEnvironment
from tidemill.exception import NotFoundError
from tidemill_registry import checks, decisions, environments, lookups, outbox, routes, siblings, timetable
from tidemill_registry.database import Clock, transaction
from tidemill_registry.schema import App, DeploymentFunction, Environment, PoolRow, Workspace

EXPIRY_BATCH = 50
RETENTION_DAYS = 30  # of stopped apps
_SILENT = f"its client sent no heartbeat for {decisions.HEARTBEAT_TIMEOUT:.0f} s"
_MAX_REASON = 1_000


class _Stopping(NamedTuple):
    """What must be known of an app to stop it."""

    id: str
    name: str | None
    version: int
    workspace: str


class Apps:
    """The apps of every workspace. An app of another workspace is not found, like one that never was."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def create(self, workspace: str, request: CreateApp, by: str = "") -> AppCreated:
        """Make an app; a deployed one that is there already is the same app."""
        async with transaction(self._engine) as connection:
            return await self.create_in(connection, workspace, request, by)

    async def create_in(
        self,
        connection: AsyncConnection,
        workspace: str,
        request: CreateApp,
        by: str = "",
        *,
        keep: bool = False,
    ) -> AppCreated:
        """Make an app in a transaction that the caller ends; `keep` leaves one that is there as it is."""
        checks.check_app(request.name, request.state, request.description, request.tags)
        environment = await environments.find(connection, workspace, request.environment, hold=True)
        values = {
            "id": ids.new(ids.APP),
            "environment_id": environment,
            "name": request.name,
            "description": request.description,
            "state": request.state,
            "tags": request.tags,
            "created_by": by,
            "heartbeat_at": self._clock() if request.state == "ephemeral" else None,
        }
        statement = upsert(App).values(values)
        if request.state == "deployed":
            statement = statement.on_conflict_do_update(
                index_elements=["environment_id", "name"],
                index_where=App.state == literal("deployed", literal_execute=True),
                set_={"description": App.description}
                if keep
                else {"description": request.description, "tags": request.tags},
            )
        app_id = await connection.scalar(statement.returning(App.id))
        return AppCreated(app_id=str(app_id))

    async def look_up(self, workspace: str, request: LookupApp, by: str = "") -> AppCreated:
        """Return a deployed app by its name, made without functions if that is wanted; `NotFoundError`."""
        made = CreateApp(request.name, request.name, "deployed", request.environment)
        async with transaction(self._engine) as connection:
            if request.create_if_missing:
                return await self.create_in(connection, workspace, made, by, keep=True)
            found = await lookups.app_id(connection, workspace, request.name, request.environment)
            return AppCreated(app_id=found)

    async def heartbeat(self, workspace: str, app_id: str) -> None:
        """Note that the client of an ephemeral app lives; `NotFoundError`, `ConflictError` if stopped."""
        async with transaction(self._engine) as connection:
            # A heartbeat lost with a power cut is followed by the next: no need to wait for the disk.
            await connection.execute(text("SET LOCAL synchronous_commit = off"))
            alive = (
                update(App)
                .where(App.id == app_id, App.state == "ephemeral", _of(workspace))
                .values(heartbeat_at=self._clock())
            )
            result: CursorResult[tuple[()]] = await connection.execute(alive)
            if result.rowcount == 0:
                await self._check_running(connection, workspace, app_id)

    async def _check_running(self, connection: AsyncConnection, workspace: str, app_id: str) -> None:
        query = select(App.state, App.stop_reason).where(App.id == app_id, _of(workspace))
        app = (await connection.execute(query)).first()
        if app is None:
            raise NotFoundError(f"there is no app {app_id!r}", hint=lookups.SEE_APPS)
        decisions.check_doable("hear the client of", app_id, app.state, app.stop_reason)

    async def stop(self, workspace: str, app_id: str, reason: str, by: str = "") -> None:
        """Stop an app; a stopped one stays as it is. `NotFoundError`."""
        async with transaction(self._engine) as connection:
            await self.stop_in(connection, workspace, app_id, reason, by)

    async def stop_in(
        self,
        connection: AsyncConnection,
        workspace: str,
        app_id: str,
        reason: str,
        by: str = "",
        seen: AppInfo | None = None,
    ) -> None:
        """Stop an app in a transaction that the caller ends."""
        query = select(App.id, App.name, App.state, App.version)
        query = query.where(App.id == app_id, _of(workspace)).with_for_update()
        app = (await connection.execute(query)).first()
        if app is None:
            raise NotFoundError(f"there is no app {app_id!r}", hint=lookups.SEE_APPS)
        decisions.check_doable("stop", app_id, app.state)
        await lookups.check_seen(connection, workspace, app_id, seen)
        if app.state != "stopped":
            stopping = _Stopping(app.id, app.name, app.version, workspace)
            await self._stop(connection, stopping, reason, by)

    async def stop_named(self, workspace: str, request: StopDeployed, by: str = "") -> None:
        """Stop an app by its id, or by its name if it is deployed; `NotFoundError`."""
        async with transaction(self._engine) as connection:
            app_id = await lookups.app_id(connection, workspace, request.app, request.environment)
            await self.stop_in(connection, workspace, app_id, request.reason, by, request.seen)

    async def delete_environment(self, workspace: str, request: DeleteEnvironment, by: str = "") -> None:
        """Stop the apps of an environment, then delete it with their records and its secrets."""
        async with transaction(self._engine) as connection:
            environment = await environments.lock_for_deletion(connection, workspace, request)
            query = select(App.id, App.name, App.version).where(
                App.environment_id == environment, App.state != "stopped"
            )
            for app in (await connection.execute(query.order_by(App.id).with_for_update())).all():
                stopping = _Stopping(app.id, app.name, app.version, workspace)
                reason = f"its environment {request.name!r} was deleted"
                await self._stop(connection, stopping, reason, by)
            await environments.remove(connection, environment)

    async def expire(self) -> list[str]:
        """Stop ephemeral apps whose clients have gone; return their ids. Replicas share the work."""
        silent = App.heartbeat_at < self._clock() - func.make_interval(
            0, 0, 0, 0, 0, 0, decisions.HEARTBEAT_TIMEOUT
        )
        query = (
            select(App.id, App.name, App.version, Workspace.name.label("workspace"))
            .join(Environment, App.environment_id == Environment.id)
            .join(Workspace, Environment.workspace_id == Workspace.id)
            .where(App.state == "ephemeral", silent)
            .order_by(App.heartbeat_at)
            .limit(EXPIRY_BATCH)
            .with_for_update(of=App, skip_locked=True)
        )
        async with transaction(self._engine) as connection:
            apps = (await connection.execute(query)).all()
            for app in apps:
                await self._stop(connection, _Stopping(*app), _SILENT, by="")
        return [app.id for app in apps]

    async def forget(self) -> int:
        """Delete apps that were stopped long ago; return how many."""
        old = App.stopped_at < self._clock() - func.make_interval(0, 0, 0, RETENTION_DAYS)
        query = select(App.id).where(App.state == "stopped", old).order_by(App.stopped_at).limit(EXPIRY_BATCH)
        async with transaction(self._engine) as connection:
            chosen = query.with_for_update(skip_locked=True).scalar_subquery()
            result: CursorResult[tuple[()]] = await connection.execute(
                delete(App).where(App.id == any_(chosen))
            )
        return result.rowcount

    async def _stop(self, connection: AsyncConnection, app: _Stopping, reason: str, by: str) -> None:
        """Stop an app whose row is locked: its pools leave the bucket, and the world is told."""
        reason = reason.replace("\0", "")[:_MAX_REASON]
        values = {"state": "stopped", "stopped_at": self._clock(), "stop_reason": reason, "stopped_by": by}
        stopped = update(App).where(App.id == app.id).values(values)
        at = await connection.scalar(stopped.returning(App.stopped_at))
        assert at is not None
        pools = await connection.scalars(select(PoolRow.id).where(PoolRow.app_id == app.id))
        versions = select(DeploymentFunction.version).where(DeploymentFunction.app_id == app.id).distinct()
        gone = siblings.gone(app.id, await connection.scalars(versions))
        told = AppEvent(app.id, app.name, "stopped", at.timestamp(), app.version, reason)
        timers = await timetable.follow(connection, app.workspace, app.id, (), app.version)
        led = await routes.follow(connection, app.id, (), lasting=True)
        await outbox.enqueue(
            connection,
            [
                *(outbox.remove(pool) for pool in pools),
                *gone,
                *timers,
                *led,
                outbox.event(subjects.event(app.workspace, "app", app.id), coding.encode(told)),
            ],
        )


def _of(workspace: str) -> ColumnElement[bool]:
    return App.environment_id.in_(environments.of_workspace(workspace))
