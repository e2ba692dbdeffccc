"""The registry: answers requests about apps, publishes read models, watches over ephemeral apps."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sqlalchemy import text

from tidemill._wire import subjects
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
from tidemill._wire.tokens import (
    CreateToken,
    ListTokens,
    RevokeToken,
    TokenInfo,
    TokenList,
    VerifyToken,
)
from tidemill.exception import ServiceError
from tidemill_common import identities, streams
from tidemill_common.bus.protocol import Endpoint, ServiceBus
from tidemill_common.requests import Endpoints
from tidemill_common.service import Context
from tidemill_registry import decisions, jwt, lookups, migrate, publishing
from tidemill_registry.apps import Apps
from tidemill_registry.callout import Callout
from tidemill_registry.database import UNREACHABLE, Clock, database_clock, new_engine
from tidemill_registry.outbox import Publisher
from tidemill_registry.revocations import Revocations
from tidemill_registry.settings import RegistrySettings
from tidemill_registry.tokens import Tokens
from tidemill_registry.workspaces import Workspaces

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
        self._apps = Apps(self._engine, clock)
        self._workspaces = Workspaces(self._engine)
        self._tokens = Tokens(self._engine, clock)
        self._callout: Callout | None = None
        self._revocations: Revocations | None = None
        self._hearing_since: float | None = None
        self._publisher: Publisher
        self._end_serving: Callable[[], Awaitable[None]] | None = None

    async def start(self, context: Context) -> None:
        """Reach the database, bring it to this version's schema, serve."""
        self._log = context.log
        await self._reach_database()
        await self._prepare_workspaces()
        await self._let_in(context)
        await self._apply_streams(context.bus)
        self._publisher = Publisher(self._engine, context.bus, context.log, context.metrics)
        context.tasks.create_task(self._publisher.run(), name="publisher")
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
        if self._callout is not None:
            await self._callout.stop()
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
            "create_token": make.endpoint("create_token", CreateToken, self._tokens.create),
            "list_tokens": make.endpoint("list_tokens", ListTokens, self._list_tokens),
            "revoke_token": make.endpoint("revoke_token", RevokeToken, self._revoke_token),
        }
        served = {subjects.registry(subjects.EVERY, verb): endpoint for verb, endpoint in table.items()}
        verify = make.internal("verify_token", VerifyToken, self._verify_token)
        return served | {subjects.internal("registry", "verify_token"): verify}

    async def _create_app(self, workspace: str, request: CreateApp) -> AppCreated:
        return await self._apps.create(workspace, request)

    async def _publish(self, workspace: str, request: PublishFunctions) -> FunctionsPublished:
        published = await publishing.publish(self._engine, workspace, request, self._clock)
        await self._publisher.published()  # callers' demand must find the pools
        return published

    async def _heartbeat(self, workspace: str, request: AppHeartbeat) -> Done:
        try:
            await self._apps.heartbeat(workspace, request.app_id)
        except ServiceError:
            self._hearing_since = None
            raise
        return Done()

    async def _stop_app(self, workspace: str, request: StopApp) -> Done:
        await self._apps.stop(workspace, request.app_id, request.reason)
        await self._publisher.published()
        return Done()

    async def _get_function(self, workspace: str, request: GetFunction) -> FunctionHandle:
        return await lookups.get_function(self._engine, self._apps, workspace, request)

    async def _list_apps(self, workspace: str, request: ListApps) -> AppList:
        return await lookups.list_apps(self._engine, self._apps, workspace, request)

    async def _get_app(self, workspace: str, request: GetApp) -> AppDetails:
        return await lookups.get_app(self._engine, self._apps, workspace, request)

    async def _list_tokens(self, workspace: str, request: ListTokens) -> TokenList:
        return TokenList(await self._tokens.of(workspace, include_revoked=request.include_revoked))

    async def _revoke_token(self, workspace: str, request: RevokeToken) -> Done:
        await self._tokens.revoke(workspace, request.token_id)
        if self._revocations is not None:
            self._revocations.soon()
        return Done()

    async def _verify_token(self, request: VerifyToken) -> TokenInfo:
        token = await self._tokens.verify(request.token_id, request.secret)
        await self._tokens.note_use(token.token_id)
        return token

    # --- who may connect

    async def _let_in(self, context: Context) -> None:
        """Answer NATS's questions who somebody is. Clients and workers cannot connect before that."""
        seed = self.settings.nats_issuer_seed.get_secret_value()
        if not seed:
            return
        issuer = jwt.Issuer(seed)
        self._callout = Callout(context.bus, self._tokens, issuer, context.log, context.metrics)
        await self._callout.start()
        password = self.settings.nats_system_password.get_secret_value()
        if password:
            self._revocations = Revocations(
                self._tokens, self.settings.nats_url, identities.SYSTEM_USER, password, context.log
            )
            context.tasks.create_task(self._revocations.run(), name="revocations")

    # --- loops

    async def _rehearse(self) -> None:
        with suppress(ServiceError, *UNREACHABLE):  # it only makes the first request faster
            await publishing.rehearse(self._engine, self._apps, self.settings.first_workspace, self._clock)

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

    async def _prepare_workspaces(self) -> None:
        """Make what an installation begins with, if it is not there."""
        await self._workspaces.create(self.settings.first_workspace)
        given = {token: secret.get_secret_value() for token, secret in self.settings.first_tokens.items()}
        if given:
            await self._tokens.ensure(given)

    async def _apply_streams(self, bus: ServiceBus) -> None:
        """See to it that each workspace has its streams."""
        for workspace in await self._workspaces.names():
            await streams.apply_workspace(bus, workspace, replicas=self.settings.replicas)

    async def _ping(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
