"""The registry: answers requests about apps, publishes read models, watches over ephemeral apps."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial, wraps
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tidemill._bus.protocol import BusError
from tidemill._wire import subjects
from tidemill._wire.apps import (
    AppDetails,
    AppHeartbeat,
    CreateApp,
    FunctionsPublished,
    GetApp,
    ListApps,
    PublishFunctions,
    StopApp,
)
from tidemill._wire.autoscaling import GetAutoscaler, UpdateAutoscaler
from tidemill._wire.calls import (
    CountRequests,
    GetCall,
    GetCallGraph,
    GetDead,
    ListCalls,
    ListDead,
    ReplayDead,
)
from tidemill._wire.control import Done, FunctionHandle, GetFunction
from tidemill._wire.deploying import (
    DeployApp,
    FindApps,
    FindFunctions,
    FunctionInfo,
    FunctionPage,
    GetTags,
    ListDeployments,
    LookupApp,
    RollbackApp,
    RolloverApp,
    SetTags,
    StopDeployed,
)
from tidemill._wire.environments import (
    CreateEnvironment,
    DeleteEnvironment,
    EnvironmentInfo,
    EnvironmentList,
    ListEnvironments,
    UpdateEnvironment,
)
from tidemill._wire.images import GetImage, GetResolution, PublishImage, PutResolution
from tidemill._wire.limits import ListLimits, RemoveLimit, SetLimit
from tidemill._wire.proxy_tokens import CreateProxyToken, ListProxyTokens, RevokeProxyToken
from tidemill._wire.schedules import ListSchedules
from tidemill._wire.secrets import (
    DeleteSecret,
    GetSecret,
    ListSecrets,
    PutAppSecret,
    PutSecret,
    RevealSecrets,
)
from tidemill._wire.specs import Autoscaling, FunctionSpec
from tidemill._wire.tokens import (
    CreateToken,
    ListTokens,
    RevokeToken,
    TokenInfo,
    TokenList,
    VerifyToken,
)
from tidemill._wire.variants import GetUrlVariant, GetVariant
from tidemill.exception import ServiceError
from tidemill_common import identities, streams
from tidemill_common.bus.protocol import Endpoint, ServiceBus
from tidemill_common.requests import Endpoints
from tidemill_common.service import Context
from tidemill_registry import (
    autoscaling,
    bundles,
    checks,
    decisions,
    deployments,
    environments,
    image_recipes,
    images,
    jwt,
    lookups,
    migrate,
    proxy_tokens,
    publishing,
    rate_limits,
    request_counts,
    retention,
    routes,
    siblings,
    tags,
    timetable,
    variants,
)
from tidemill_registry.apps import Apps
from tidemill_registry.callout import Callout
from tidemill_registry.calls import Calls
from tidemill_registry.database import UNREACHABLE, Clock, database_clock, new_engine
from tidemill_registry.dead_letters import DeadLetters
from tidemill_registry.decisions import AppState, Publication
from tidemill_registry.outbox import Publisher
from tidemill_registry.recording import Recording
from tidemill_registry.revocations import Revocations
from tidemill_registry.secrets import Secrets
from tidemill_registry.settings import RegistrySettings
from tidemill_registry.tokens import Tokens
from tidemill_registry.warming import Warming
from tidemill_registry.workspaces import Workspaces

VERSION = "1.0.0"  # of the requests, as the micro service tells it
SWEEP = 5.0  # seconds between looks for ephemeral apps whose clients have gone
TRIM = 60.0  # seconds between looks for versions that are too old
COLLECT = 3_600.0  # seconds between looks for code that nothing refers to
FIRST_COLLECT = 60.0  # seconds until the first one
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
        self._urls = routes.Urls(settings.web_url)
        self._secrets = Secrets(self._engine, settings.keyring(), clock)
        self._hearing_since: float | None = None
        self._publisher: Publisher
        self._recording: Recording
        self._calls: Calls
        self._dead: DeadLetters
        self._end_serving: Callable[[], Awaitable[None]] | None = None

    async def start(self, context: Context) -> None:
        """Reach the database, bring it to this version's schema, serve."""
        self._log = context.log
        await asyncio.gather(  # the first workspace's streams do not wait for the database
            self._reach_database(),
            self._apply_streams(context.bus, self.settings.first_workspace),
        )
        await self._prepare_workspaces()
        await self._let_in(context)
        others = set(await self._workspaces.names()) - {self.settings.first_workspace}
        await self._apply_streams(context.bus, *sorted(others))
        if wrong := await self._secrets.check_keys():
            context.log.error(wrong, hint="give TIDEMILL_SECRETS_KEY the keys they were stored with")
        self._publisher = Publisher(
            self._engine,
            context.bus,
            context.log,
            context.metrics,
            compare=(
                siblings.reconcile,
                routes.reconcile,
                timetable.reconcile,
                rate_limits.reconcile,
                proxy_tokens.reconcile,
            ),
        )
        self._bus = context.bus
        self._warming = Warming(self._engine, context.bus, self._publisher, self._clock, context.log)
        context.tasks.create_task(self._publisher.run(), name="publisher")
        self._recording = Recording(self._engine, context.bus, context.log, context.metrics)
        self._recording.attend(await self._workspaces.names())
        self._calls = Calls(self._engine, self._recording)
        self._dead = DeadLetters(self._engine, context.bus)
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
        if self._callout is not None:
            await self._callout.stop()
        await self._engine.dispose()

    # --- requests

    def _endpoints(self, make: Endpoints) -> dict[str, Endpoint]:
        """Return what is answered: on the subjects of members, and on those of workers' containers."""
        noted: Sequence[tuple[str, type[Any], Callable[[str, Any, str], Awaitable[object]]]] = (
            ("create_app", CreateApp, self._linked(self._apps.create)),
            ("publish_functions", PublishFunctions, self._publish),
            ("lookup_app", LookupApp, self._linked(self._apps.look_up)),
            ("deploy_app", DeployApp, self._linked(self._warmed(self._told(deployments.deploy)))),
            ("rollback_app", RollbackApp, self._linked(self._warmed(self._told(deployments.roll_back)))),
            ("rollover_app", RolloverApp, self._linked(self._told(deployments.roll_over))),
            ("put_secret", PutSecret, self._secrets.put),
            ("put_app_secret", PutAppSecret, self._secrets.put_unnamed),
            ("stop_app", StopApp, self._stop_app),
            ("stop_deployed", StopDeployed, self._stop_deployed),
            ("delete_environment", DeleteEnvironment, self._delete_environment),
            ("create_token", CreateToken, self._tokens.create),
            ("revoke_token", RevokeToken, self._revoke_token),
        )
        table: Sequence[tuple[str, type[Any], Callable[[str, Any], Awaitable[object]]]] = (
            ("heartbeat", AppHeartbeat, self._heartbeat),
            ("get_function", GetFunction, self._get_function),
            ("get_variant", GetVariant, self._get_variant),
            ("get_url_variant", GetUrlVariant, self._get_url_variant),
            ("list_apps", ListApps, partial(lookups.list_apps, self._engine)),
            ("list_schedules", ListSchedules, partial(timetable.list_schedules, self._engine, self._bus)),
            ("get_app", GetApp, self._get_app),
            ("find_apps", FindApps, partial(lookups.find_apps, self._engine)),
            ("find_functions", FindFunctions, self._find_functions),
            ("list_deployments", ListDeployments, partial(deployments.list_versions, self._engine)),
            ("set_tags", SetTags, partial(tags.replace, self._engine)),
            ("get_tags", GetTags, partial(tags.read, self._engine)),
            ("get_autoscaler", GetAutoscaler, partial(autoscaling.read, self._engine)),
            ("update_autoscaler", UpdateAutoscaler, self._update_autoscaler),
            ("list_environments", ListEnvironments, self._list_environments),
            ("create_environment", CreateEnvironment, partial(environments.create, self._engine)),
            ("update_environment", UpdateEnvironment, self._change_environment),
            ("get_image", GetImage, partial(image_recipes.get, self._engine)),
            ("publish_image", PublishImage, partial(image_recipes.publish, self._engine)),
            ("get_secret", GetSecret, self._secrets.get),
            ("list_secrets", ListSecrets, self._secrets.list_named),
            ("delete_secret", DeleteSecret, self._secrets.remove),
            ("list_tokens", ListTokens, self._list_tokens),
            ("create_proxy_token", CreateProxyToken, self._announced(proxy_tokens.create)),
            ("list_proxy_tokens", ListProxyTokens, partial(proxy_tokens.of, self._engine)),
            ("revoke_proxy_token", RevokeProxyToken, self._announced(proxy_tokens.revoke)),
            ("set_limit", SetLimit, self._announced(rate_limits.put)),
            ("list_limits", ListLimits, partial(rate_limits.of, self._engine)),
            ("remove_limit", RemoveLimit, self._announced(rate_limits.remove)),
            ("get_call_graph", GetCallGraph, self._calls.graph),
            ("get_call", GetCall, self._calls.get),
            ("list_calls", ListCalls, self._calls.newest),
            ("count_requests", CountRequests, partial(request_counts.count, self._engine)),
            ("list_dead", ListDead, self._dead.newest),
            ("get_dead", GetDead, self._dead.get),
            ("replay_dead", ReplayDead, self._dead.replay),
        )
        verify = make.internal("verify_token", VerifyToken, self._verify_token)
        reveal = make.endpoint("reveal_secrets", RevealSecrets, self._secrets.reveal)
        endpoints = {
            **{verb: make.noted(verb, kind, handler) for verb, kind, handler in noted},
            **{verb: make.endpoint(verb, kind, handler) for verb, kind, handler in table},
        }
        resolved = make.endpoint(
            "get_resolution", GetResolution, partial(images.get_resolution, self._engine)
        )
        resolve = make.endpoint("put_resolution", PutResolution, partial(images.put_resolution, self._engine))
        return {
            **{subjects.registry(subjects.EVERY, verb): endpoint for verb, endpoint in endpoints.items()},
            **{subjects.signed(subjects.EVERY, verb): endpoint for verb, endpoint in endpoints.items()},
            subjects.reveal_secrets(subjects.EVERY): reveal,
            subjects.images(subjects.EVERY, "get_resolution"): resolved,
            subjects.images(subjects.EVERY, "put_resolution"): resolve,
            subjects.internal("registry", "verify_token"): verify,
        }

    def _told(self, change: Callable[..., Awaitable[Any]]) -> Callable[[str, Any, str], Awaitable[object]]:
        """Return a handler that answers when NATS knows what was changed: callers' demand must find it."""

        @wraps(change)  # its answer's type is told over $SRV.INFO
        async def handle(workspace: str, request: Any, by: str) -> object:
            answer = await change(self._engine, workspace, request, self._clock, by)
            await self._publisher.published()
            return replace(answer, handles=self._urls.all_told(answer.handles))

        return handle

    def _warmed(self, change: Callable[..., Awaitable[Any]]) -> Callable[[str, Any, str], Awaitable[object]]:
        """Return a handler that first has containers of what is to serve, if the strategy is to roll."""

        @wraps(change)
        async def handle(workspace: str, request: Any, by: str) -> object:
            if request.strategy == "rolling":
                if isinstance(request, DeployApp):
                    await self._warm(workspace, request.name, request.environment, request.functions)
                else:
                    decide = partial(_restored, request)
                    await self._warming.prepare(workspace, request.app, request.environment, decide)
            return await change(workspace, request, by)

        return handle

    async def _warm(
        self, workspace: str, app: str, environment: str, functions: Sequence[FunctionSpec]
    ) -> None:
        async def decide(connection: AsyncConnection, locked: AppState) -> Publication:
            checks.check_functions(functions)
            return await publishing.decide(connection, locked, functions)

        await self._warming.prepare(workspace, app, environment, decide)

    def _announced(self, change: Callable[..., Awaitable[Any]]) -> Callable[[str, Any], Awaitable[object]]:
        """Do the same for what has nothing to do with the time."""

        @wraps(change)
        async def handle(workspace: str, request: Any) -> object:
            answer: object = await change(self._engine, workspace, request)
            await self._publisher.published()
            return answer

        return handle

    def _linked(self, make: Callable[..., Awaitable[Any]]) -> Callable[[str, Any, str], Awaitable[object]]:
        """Return a handler whose answer tells where the app is found over HTTP, if that is known."""

        @wraps(make)
        async def handle(workspace: str, request: Any, by: str) -> object:
            answer = await make(workspace, request, by)
            url = self.settings.public_url
            return replace(answer, url=f"{url}/api/v1/apps/{answer.app_id}") if url else answer

        return handle

    async def _publish(self, workspace: str, request: PublishFunctions, by: str) -> FunctionsPublished:
        await self._warm(workspace, request.app_id, "", request.functions)
        published = await publishing.publish(self._engine, workspace, request, self._clock, by)
        await self._publisher.published()
        return FunctionsPublished(self._urls.all_told(published.handles))

    async def _update_autoscaler(self, workspace: str, request: UpdateAutoscaler) -> Autoscaling:
        changed = await autoscaling.change(self._engine, workspace, request)
        await self._publisher.published()
        return changed

    async def _heartbeat(self, workspace: str, request: AppHeartbeat) -> Done:
        try:
            await self._apps.heartbeat(workspace, request.app_id)
        except ServiceError:
            self._hearing_since = None
            raise
        return Done()

    async def _stop_app(self, workspace: str, request: StopApp, by: str) -> Done:
        await self._apps.stop(workspace, request.app_id, request.reason, by)
        await self._publisher.published()
        return Done()

    async def _stop_deployed(self, workspace: str, request: StopDeployed, by: str) -> Done:
        await self._apps.stop_named(workspace, request, by)
        await self._publisher.published()
        return Done()

    async def _get_function(self, workspace: str, request: GetFunction) -> FunctionHandle:
        handle, pending = await lookups.get_function(self._engine, workspace, request)
        if pending:  # it was deployed a moment ago: nobody is to call a pool that is not there
            await self._publisher.published()
        return self._urls.told(handle)

    async def _get_app(self, workspace: str, request: GetApp) -> AppDetails:
        details = await lookups.get_app(self._engine, workspace, request)
        return replace(details, handles=self._urls.all_told(details.handles))

    async def _find_functions(self, workspace: str, request: FindFunctions) -> FunctionPage:
        page = await lookups.find_functions(self._engine, workspace, request)
        return replace(page, functions=tuple(map(self._located, page.functions)))

    def _located(self, info: FunctionInfo) -> FunctionInfo:
        """Return a function with URLs in the place of labels."""
        urls = {method: url for method, label in info.web_urls.items() if (url := self._urls.of(label))}
        return replace(info, web_url=urls.pop("", None), web_urls=urls)

    async def _get_variant(self, workspace: str, request: GetVariant) -> FunctionHandle:
        return await self._variant(workspace, request, of_url=False)

    async def _get_url_variant(self, workspace: str, request: GetUrlVariant) -> FunctionHandle:
        return await self._variant(workspace, GetVariant(request.pool, request.parameters), of_url=True)

    async def _variant(self, workspace: str, request: GetVariant, *, of_url: bool) -> FunctionHandle:
        handle, pending = await variants.get(self._engine, workspace, request, self._clock, of_url=of_url)
        if pending:
            await self._publisher.published()
        return self._urls.told(handle)

    async def _list_environments(self, workspace: str, _request: ListEnvironments) -> EnvironmentList:
        return await environments.list_all(self._engine, workspace)

    async def _change_environment(self, workspace: str, request: UpdateEnvironment) -> EnvironmentInfo:
        changed = await environments.change(self._engine, workspace, request)
        await self._publisher.published()
        return changed

    async def _delete_environment(self, workspace: str, request: DeleteEnvironment, by: str) -> Done:
        await self._apps.delete_environment(workspace, request, by)
        await self._publisher.published()
        return Done()

    async def _list_tokens(self, workspace: str, request: ListTokens) -> TokenList:
        return TokenList(await self._tokens.of(workspace, include_revoked=request.include_revoked))

    async def _revoke_token(self, workspace: str, request: RevokeToken, by: str) -> Done:
        await self._tokens.revoke(workspace, request.token_id, by)
        if self._revocations is not None:
            self._revocations.soon()
        return Done()

    async def _verify_token(self, request: VerifyToken) -> TokenInfo:
        token, is_noted = await self._tokens.verify(request.token_id, request.secret)
        if not is_noted:
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
            await publishing.rehearse(self._engine, self.settings.first_workspace, self._apps, self._clock)

    async def _sweep(self) -> None:
        """Stop ephemeral apps whose clients have gone, and forget what was stopped long ago."""
        loop = asyncio.get_running_loop()
        trim_at, collect_at = 0.0, loop.time() + FIRST_COLLECT
        while True:
            await asyncio.sleep(SWEEP)
            try:
                if self._hearing_since is None:
                    await self._ping()
                    self._hearing_since = loop.time()
                if decisions.may_expire(now=loop.time(), hearing_since=self._hearing_since):
                    await self._expire()
                await self._apps.forget()
                self._recording.attend(await self._workspaces.names())
                await self._recording.forget()
                await self._dead.forget()
                await self._secrets.collect()
                if loop.time() >= collect_at:
                    collect_at = loop.time() + COLLECT
                    await self._collect()
                if loop.time() >= trim_at:
                    trim_at = loop.time() + TRIM
                    await retention.trim(self._engine, self._clock)
                    await variants.forget(self._engine, self._clock)
            except (ServiceError, *UNREACHABLE) as error:
                self._hearing_since = None
                self._log.warning("the sweep waits for the database", error=str(error))

    async def _collect(self) -> None:
        """Remove code that no version refers to any more."""
        for workspace in await self._workspaces.names():
            try:
                count = await bundles.collect(self._engine, self._bus, workspace, time.time())
            except BusError as error:
                self._log.warning("unused code waits for NATS", workspace=workspace, error=str(error))
                continue
            if count:
                self._log.info("removed code that no version refers to", workspace=workspace, count=count)

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

    async def _apply_streams(self, bus: ServiceBus, *workspaces: str) -> None:
        """See to it that some workspaces have their streams."""
        for workspace in workspaces:
            await streams.apply_workspace(bus, workspace, replicas=self.settings.replicas)

    async def _ping(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(text("SELECT 1"))


async def _restored(request: RollbackApp, connection: AsyncConnection, app: AppState) -> Publication:
    _, publication = await deployments.restored(connection, app, request)
    return publication
