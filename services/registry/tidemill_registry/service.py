"""The registry: answers requests about apps, publishes read models, watches over ephemeral apps."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tidemill.exception import ServiceError
from tidemill_common import identities, streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.requests import Endpoints
from tidemill_common.service import Context
from tidemill_registry import (
    jwt,
    migrate,
    proxy_tokens,
    publishing,
    rate_limits,
    routes,
    siblings,
    timetable,
)
from tidemill_registry.apps import Apps
from tidemill_registry.callout import Callout
from tidemill_registry.calls import Calls
from tidemill_registry.database import UNREACHABLE, Clock, database_clock, new_engine, ping
from tidemill_registry.dead_letters import DeadLetters
from tidemill_registry.handles import Handles
from tidemill_registry.outbox import Publisher
from tidemill_registry.recording import Recording
from tidemill_registry.requests import Requests
from tidemill_registry.revocations import Revocations
from tidemill_registry.secrets import Secrets
from tidemill_registry.settings import RegistrySettings
from tidemill_registry.sweeping import Sweep
from tidemill_registry.tokens import Tokens
from tidemill_registry.warming import Warming
from tidemill_registry.workspaces import Workspaces

VERSION = "1.0.0"  # of the requests, as the micro service tells it
RECONNECT = 0.05  # seconds between tries to reach the database at the start
WARM_CONNECTIONS = 2  # made before the first request: one for requests, one for the publisher

# What NATS knows is compared with the tables, for each kind of what it is told.
COMPARED = (
    siblings.reconcile,
    routes.reconcile,
    timetable.reconcile,
    rate_limits.reconcile,
    proxy_tokens.reconcile,
)


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
        self._secrets = Secrets(self._engine, settings.keyring(), clock)
        self._publisher: Publisher
        self._recording: Recording
        self._sweep: Sweep
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
        self._publisher = Publisher(self._engine, context.bus, context.log, context.metrics, compare=COMPARED)
        context.tasks.create_task(self._publisher.run(), name="publisher")
        self._recording = Recording(self._engine, context.bus, context.log, context.metrics)
        self._recording.attend(await self._workspaces.names())
        context.tasks.create_task(self._recording.run(), name="recording")
        urls = routes.Urls(self.settings.web_url)
        warming = Warming(self._engine, context.bus, self._publisher, self._clock, context.log)
        handles = Handles(self._engine, self._publisher, urls, self._clock, warming)
        dead = DeadLetters(self._engine, context.bus, handles.get_variant)
        self._sweep = self._new_sweep(context, dead)
        context.tasks.create_task(self._sweep.run(), name="sweep")
        context.bus.on_reconnect(self._after_reconnect)
        requests = self._requests(context.bus, handles, dead)
        endpoints = requests.endpoints(Endpoints(context.log, context.metrics))
        self._end_serving = await context.bus.serve("tidemill-registry", VERSION, endpoints)
        self._sweep.listen()
        context.tasks.create_task(self._rehearse(), name="rehearsal")

    def _new_sweep(self, context: Context, dead: DeadLetters) -> Sweep:
        return Sweep(
            self._engine,
            context.bus,
            self._clock,
            context.log,
            apps=self._apps,
            workspaces=self._workspaces,
            secrets=self._secrets,
            recording=self._recording,
            dead=dead,
        )

    def _requests(self, bus: ServiceBus, handles: Handles, dead: DeadLetters) -> Requests:
        return Requests(
            engine=self._engine,
            bus=bus,
            publisher=self._publisher,
            handles=handles,
            apps=self._apps,
            secrets=self._secrets,
            tokens=self._tokens,
            calls=Calls(self._engine, self._recording),
            dead=dead,
            sweep=self._sweep,
            revoked=self._after_revocation,
            public_url=self.settings.public_url,
        )

    async def ready(self) -> str | None:
        """Tell whether the database answers."""
        try:
            await ping(self._engine)
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

    def _after_revocation(self) -> None:
        if self._revocations is not None:
            self._revocations.soon()

    # --- loops

    async def _rehearse(self) -> None:
        with suppress(ServiceError, *UNREACHABLE):  # it only makes the first request faster
            await publishing.rehearse(self._engine, self.settings.first_workspace, self._apps, self._clock)

    def _after_reconnect(self) -> None:
        """Nobody could be heard for a while, and NATS may have lost what it was told."""
        self._sweep.listen()
        self._publisher.reconcile_soon()

    # --- the database

    async def _reach_database(self) -> None:
        """Return when the database is there and has this version's schema."""
        told = ""
        while True:
            try:
                await ping(self._engine)
                break
            except UNREACHABLE as error:
                if str(error) != told:
                    told = str(error)
                    self._log.warning("cannot reach the database yet", error=told)
                await asyncio.sleep(RECONNECT)
        if self.settings.migrate:
            await migrate.upgrade(self._engine)
        await asyncio.gather(*(ping(self._engine) for _ in range(WARM_CONNECTIONS)))

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
