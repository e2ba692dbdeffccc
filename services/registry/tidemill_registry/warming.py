"""A version serves when containers of it are ready, where those of the version before are warm.

    deploy ──> which functions have warm containers? ──none──────────────────────────────> the version serves
                   └── some: their new pools are told, as pools that do not serve yet ──> scheduler
                                     their containers are ready, or cannot be, or it takes too long ──┘

What is prepared is in the tables like a pool of an earlier version: the deployment finds it there, and serves
with it. A deployment that never comes leaves a pool that nobody calls.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import NamedTuple, TypeVar

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill import exception
from tidemill._bus.protocol import BusError
from tidemill._wire import coding, subjects
from tidemill._wire.apps import PublishFunctions
from tidemill._wire.deploying import DeployApp, RollbackApp
from tidemill._wire.scheduling import CountReady, MakeReady, ReadyCounts
from tidemill._wire.specs import FunctionSpec
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_registry import checks, deployments, lookups, outbox, publishing, secrets, siblings
from tidemill_registry.database import Clock, question, transaction
from tidemill_registry.decisions import AppState, Publication, prepared
from tidemill_registry.schema import Function, PoolRow

HOLD = 10.0  # seconds that a version waits for its containers
COUNT_TIMEOUT = 0.5  # seconds for the scheduler to say what is warm
AT_ONCE = 8  # versions that wait; others do not
MOST = 50  # containers of a function that are made ready

Decide = Callable[[AsyncConnection, AppState], Awaitable[Publication]]
Answer = TypeVar("Answer")


class Warming:
    """Prepares versions."""

    def __init__(
        self, engine: AsyncEngine, bus: ServiceBus, publisher: outbox.Publisher, clock: Clock, log: Logger
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._publisher = publisher
        self._clock = clock
        self._log = log
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def before_deploying(self, workspace: str, request: DeployApp) -> None:
        """Return when a deployment can serve without anybody waiting for a container."""
        if request.strategy == "rolling":
            decide = _publishing(request.functions)
            await self._prepare(workspace, request.name, request.environment, decide)

    async def before_publishing(self, workspace: str, request: PublishFunctions) -> None:
        """Do the same for the functions of any app."""
        await self._prepare(workspace, request.app_id, "", _publishing(request.functions))

    async def before_rolling_back(self, workspace: str, request: RollbackApp) -> None:
        """Do the same for an earlier version."""

        async def decide(connection: AsyncConnection, app: AppState) -> Publication:
            _, publication = await deployments.restored(connection, app, request)
            return publication

        if request.strategy == "rolling":
            await self._prepare(workspace, request.app, request.environment, decide)

    async def _prepare(self, workspace: str, app: str, environment: str, decide: Decide) -> None:
        """Prepare the version that `decide` makes.

        Whatever goes wrong here goes wrong again where it is told: in the deployment itself.
        """
        if self._turn.locked():
            return
        async with self._turn:
            try:
                warm = await self._warm(workspace, app, environment)
                wanted = await self._store(workspace, warm, decide) if warm else {}
                if wanted:
                    await self._publisher.published()
                    message = MakeReady(wanted, HOLD)
                    await self._ask("make_ready", message, ReadyCounts, timeout=HOLD + 1.0)
            except (exception.Error, BusError, TimeoutError) as error:
                self._log.warning("a version serves without warm containers", app=app, error=str(error))

    async def _warm(self, workspace: str, app: str, environment: str) -> "_Warm | None":
        """Return what of an app is warm: None where nothing is, or nobody knows."""
        async with question(self._engine) as connection:
            try:
                app_id = await lookups.app_id(connection, workspace, app, environment)
            except exception.NotFoundError:
                return None
            query = select(PoolRow.id, PoolRow.function_id).where(
                PoolRow.app_id == app_id, PoolRow.superseded_at.is_(None), PoolRow.variant_of.is_(None)
            )
            serving = {row.id: row.function_id for row in await connection.execute(query)}
        if not serving:
            return None
        with suppress(BusError):  # whoever cannot be asked holds nobody up
            told = await self._ask("count_ready", CountReady(tuple(serving)), ReadyCounts, COUNT_TIMEOUT)
            counts = {serving[pool]: min(count, MOST) for pool, count in told.counts.items() if count}
            return _Warm(app_id, serving.keys(), counts) if counts else None
        return None

    async def _store(self, workspace: str, warm: "_Warm", decide: Decide) -> dict[str, int]:
        """Store the pools of the version that are new; return how many containers of each are wanted."""
        async with transaction(self._engine) as connection:
            app = await publishing.locked_app(connection, workspace, warm.app_id, "publish functions for")
            publication = await decide(connection, app)
            coming = [item for item in publication.served if item.pool.id not in warm.serving]
            counts = warm.counts
            wanted = {
                item.pool.id: counts[item.pool.function_id]
                for item in coming
                if item.pool.function_id in counts
            }
            new = [item for item in coming if not item.known]
            if not wanted or not new:
                return wanted
            await secrets.check_there(connection, workspace, [item.pool.spec for item in new])
            if made := publication.new_functions.items():
                rows = [{"id": function_id, "app_id": app.id, "name": name} for name, function_id in made]
                await connection.execute(insert(Function), rows)
            retired = {item.pool.id: prepared(item) for item in new}
            await publishing.insert_pools(connection, new, retired, self._clock)
            told = [siblings.told(app.id, publication.version, publication.handles)]
            told += [outbox.put(pool, one.record) for pool, one in retired.items()]
            await outbox.enqueue(connection, told)
        return wanted

    async def _ask(self, verb: str, message: object, answer: type[Answer], timeout: float) -> Answer:
        subject = subjects.internal("scheduler", verb)
        data = await self._bus.request(subject, coding.encode(message), timeout=timeout)
        return msgspec.msgpack.decode(data, type=answer)


class _Warm(NamedTuple):
    """An app's pools that serve, and how many containers of a function are ready."""

    app_id: str
    serving: AbstractSet[str]
    counts: Mapping[str, int]


def _publishing(functions: Sequence[FunctionSpec]) -> Decide:
    async def decide(connection: AsyncConnection, app: AppState) -> Publication:
        checks.check_functions(functions)
        return await publishing.decide(connection, app, functions)

    return decide
