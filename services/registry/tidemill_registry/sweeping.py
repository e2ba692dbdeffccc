"""What goes by itself: apps whose clients have gone, and what is too old or used by nothing."""

import asyncio
import time

from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._bus.protocol import BusError
from tidemill.exception import ServiceError
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_registry import bundles, decisions, image_recipes, retention, variants
from tidemill_registry.apps import Apps
from tidemill_registry.database import UNREACHABLE, Clock, ping
from tidemill_registry.dead_letters import DeadLetters
from tidemill_registry.recording import Recording
from tidemill_registry.secrets import Secrets
from tidemill_registry.workspaces import Workspaces

SWEEP = 5.0  # seconds between looks for ephemeral apps whose clients have gone
TRIM = 60.0  # seconds between looks for versions that are too old
COLLECT = 3_600.0  # seconds between looks for code that nothing refers to
FIRST_COLLECT = 60.0  # seconds until the first one


class Sweep:
    """Looks again and again. Replicas share the work."""

    def __init__(
        self,
        engine: AsyncEngine,
        bus: ServiceBus,
        clock: Clock,
        log: Logger,
        *,
        apps: Apps,
        workspaces: Workspaces,
        secrets: Secrets,
        recording: Recording,
        dead: DeadLetters,
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._clock = clock
        self._log = log
        self._apps = apps
        self._workspaces = workspaces
        self._secrets = secrets
        self._recording = recording
        self._dead = dead
        self._hearing_since: float | None = None

    def listen(self) -> None:
        """Note that clients can be heard from now on: before, their silence meant nothing."""
        self._hearing_since = asyncio.get_running_loop().time()

    def deaf(self) -> None:
        """Note that what clients say cannot be written down."""
        self._hearing_since = None

    async def run(self) -> None:
        """Stop ephemeral apps whose clients have gone, and forget what was stopped long ago."""
        loop = asyncio.get_running_loop()
        trim_at, collect_at = 0.0, loop.time() + FIRST_COLLECT
        while True:
            await asyncio.sleep(SWEEP)
            try:
                if self._hearing_since is None:
                    await ping(self._engine)
                    self.listen()
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
        """Remove recipes and code that no version refers to any more."""
        await image_recipes.forget(self._engine, self._clock)
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
