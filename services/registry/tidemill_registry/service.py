"""The registry: answers requests about apps, publishes read models, watches over ephemeral apps."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sqlalchemy import text

from tidemill._wire import subjects
from tidemill._wire.calls import GetCall, GetCallGraph, GetDead, ListCalls, ListDead, ReplayDead
from tidemill._wire.control import (
    AppCreated,
    AppDetails,
    AppHeartbeat,
    AppList,
    CreateApp,
    Done,
    FunctionHandle,
    FunctionsPublished,
    GetApp,
    GetFunction,
    ListApps,
    PublishFunctions,
    StopApp,
)
from tidemill.exception import ServiceError
from tidemill_common.bus.protocol import Endpoint
from tidemill_common.requests import Endpoints
from tidemill_common.service import Context
from tidemill_registry import decisions, lookups, migrate, publishing
from tidemill_registry.apps import Apps
from tidemill_registry.calls import Calls
from tidemill_registry.database import UNREACHABLE, Clock, database_clock, new_engine
from tidemill_registry.dead_letters import DeadLetters
from tidemill_registry.outbox import Publisher
from tidemill_registry.recording import Recording
from tidemill_registry.settings import RegistrySettings

VERSION = "1.0.0"  # of the requests, as the micro service tells it
SWEEP = 5.0  # seconds between looks for ephemeral apps whose clients have gone
RECONNECT = 0.05  # seconds between tries to reach the database at the start
WARM_CONNECTIONS = 2  # made before the first request: one for requests, one for the publisher


class Registry:
    """The registry's service."""

    name = "registry"

    def __init__(self, settings: RegistrySettings, clock: Clock = database_clock) -> None:
        self.settings = settings
        self._clock = clock
        self._engine = new_engine(settings.database_url.get_secret_value(), settings.database_connections)
        self._apps = Apps(self._engine, settings.workspace, clock)
        self._hearing_since: float | None = None
        self._publisher: Publisher
        self._recording: Recording
        self._calls: Calls
        self._dead: DeadLetters
        self._end_serving: Callable[[], Awaitable[None]] | None = None

    async def start(self, context: Context) -> None:
        """Reach the database, bring it to this version's schema, serve."""
        self._log = context.log
        await self._reach_database()
        await self._apps.prepare()
        self._publisher = Publisher(self._engine, context.bus, context.log, context.metrics)
        context.tasks.create_task(self._publisher.run(), name="publisher")
        self._recording = Recording(self._engine, context.bus, context.log, context.metrics)
        self._calls = Calls(self._engine, self._recording, self.settings.workspace)
        self._dead = DeadLetters(self._engine, context.bus, self.settings.workspace)
        context.tasks.create_task(self._recording.run(), name="recording")
        context.tasks.create_task(self._sweep(), name="sweep")
        context.bus.on_reconnect(self._after_reconnect)
        endpoints = self._endpoints(Endpoints(context.log, context.metrics))
        self._end_serving = await context.bus.serve("tidemill-registry", VERSION, endpoints)
        self._hearing_since = asyncio.get_running_loop().time()
        context.tasks.create_task(self._rehearse(), name="rehearsal")

    async def ready(self) -> str | None:
        """Tell whether the database answers."""
        try:
            await self._ping()
        except UNREACHABLE as error:
            return f"the database does not answer: {error}"
        return None

    async def drain(self) -> None:
        """Take no more requests. What is decided and not told yet waits in the outbox."""
        if self._end_serving is not None:
            await self._end_serving()
            await self._recording.close()
        await self._engine.dispose()

    # --- requests

    def _endpoints(self, make: Endpoints) -> dict[str, Endpoint]:
        table = {
            "create_app": make.endpoint("create_app", CreateApp, self._create_app),
            "publish_functions": make.endpoint("publish_functions", PublishFunctions, self._publish),
            "heartbeat": make.endpoint("heartbeat", AppHeartbeat, self._heartbeat),
            "stop_app": make.endpoint("stop_app", StopApp, self._stop_app),
            "get_function": make.endpoint("get_function", GetFunction, self._get_function),
            "list_apps": make.endpoint("list_apps", ListApps, self._list_apps),
            "get_app": make.endpoint("get_app", GetApp, self._get_app),
            "get_call_graph": make.endpoint("get_call_graph", GetCallGraph, self._calls.graph),
            "get_call": make.endpoint("get_call", GetCall, self._calls.get),
            "list_calls": make.endpoint("list_calls", ListCalls, self._calls.newest),
            "list_dead": make.endpoint("list_dead", ListDead, self._dead.newest),
            "get_dead": make.endpoint("get_dead", GetDead, self._dead.get),
            "replay_dead": make.endpoint("replay_dead", ReplayDead, self._dead.replay),
        }
        return {subjects.registry(verb): endpoint for verb, endpoint in table.items()}

    async def _create_app(self, request: CreateApp) -> AppCreated:
        return await self._apps.create(request)

    async def _publish(self, request: PublishFunctions) -> FunctionsPublished:
        published = await publishing.publish(self._engine, request, self._clock)
        await self._publisher.published()  # callers' demand must find the pools
        return published

    async def _heartbeat(self, request: AppHeartbeat) -> Done:
        try:
            await self._apps.heartbeat(request.app_id)
        except ServiceError:
            self._hearing_since = None
            raise
        return Done()

    async def _stop_app(self, request: StopApp) -> Done:
        await self._apps.stop(request.app_id, request.reason)
        await self._publisher.published()
        return Done()

    async def _get_function(self, request: GetFunction) -> FunctionHandle:
        return await lookups.get_function(self._engine, self._apps, request)

    async def _list_apps(self, request: ListApps) -> AppList:
        return await lookups.list_apps(self._engine, self._apps, request)

    async def _get_app(self, request: GetApp) -> AppDetails:
        return await lookups.get_app(self._engine, self._apps, request)

    # --- loops

    async def _rehearse(self) -> None:
        with suppress(ServiceError, *UNREACHABLE):  # it only makes the first request faster
            await publishing.rehearse(self._engine, self._apps, self._clock)

    async def _sweep(self) -> None:
        """Stop ephemeral apps whose clients have gone, and forget what was stopped long ago."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP)
            try:
                if self._hearing_since is None:
                    await self._ping()
                    self._hearing_since = loop.time()
                if decisions.may_expire(now=loop.time(), hearing_since=self._hearing_since):
                    await self._expire()
                await self._apps.forget()
                await self._recording.forget()
                await self._dead.forget()
            except (ServiceError, *UNREACHABLE) as error:
                self._hearing_since = None
                self._log.warning("the sweep waits for the database", error=str(error))

    async def _expire(self) -> None:
        if expired := await self._apps.expire():
            self._log.info("stopped apps whose clients have gone", apps=expired)

    def _after_reconnect(self) -> None:
        """Nobody could be heard for a while, and NATS may have lost what it was told."""
        self._hearing_since = asyncio.get_running_loop().time()
        self._publisher.reconcile_soon()

    # --- the database

    async def _reach_database(self) -> None:
        """Return when the database is there and has this version's schema."""
        told = ""
        while True:
            try:
                await self._ping()
                break
            except UNREACHABLE as error:
                if str(error) != told:
                    told = str(error)
                    self._log.warning("cannot reach the database yet", error=told)
                await asyncio.sleep(RECONNECT)
        if self.settings.migrate:
            await migrate.upgrade(self._engine)
        await asyncio.gather(*(self._ping() for _ in range(WARM_CONNECTIONS)))

    async def _ping(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
