"""A version serves when containers of it are ready, where those of the version before are warm.

    deploy ──> which functions have warm containers? ──none──────────────────────────────> the version serves
                   └── some: their new pools are told, as pools that do not serve yet ──> scheduler
                                     their containers are ready, or cannot be, or it takes too long ──┘

What is prepared is in the tables like a pool of an earlier version: the deployment finds it there, and serves
with it. A deployment that never comes leaves a pool that nobody calls. The same goes for the sets of options
and parameters that have warm containers: each has a pool of its own, whose containers nobody else can use.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
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
from tidemill._wire.specs import FunctionSpec, Pool
from tidemill._wire.variants import GetVariant
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_registry import (
    checks,
    deployments,
    lookups,
    outbox,
    publishing,
    records,
    secrets,
    siblings,
    variants,
)
from tidemill_registry.database import Clock, question, transaction
from tidemill_registry.decisions import AppState, Publication, ServedPool, prepared
from tidemill_registry.schema import Function, PoolRow

HOLD = 10.0  # seconds that a version waits for its containers
COUNT_TIMEOUT = 5.0  # seconds for a leading scheduler to say what is warm; where none leads, nobody waits
AT_ONCE = 8  # versions that wait; others do not
MOST = 50  # containers of a function that are made ready, those of its sets included
MOST_SETS = 20  # sets of options and parameters of a function that are made ready
MOST_ASKED = 500  # sets of an app that the scheduler is asked about: those that were in use last

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
            sets = await _sets(connection, serving)
        if not serving:
            return None
        with suppress(BusError):  # whoever cannot be asked holds nobody up
            asked = CountReady((*serving, *sets))
            counts = (await self._ask("count_ready", asked, ReadyCounts, COUNT_TIMEOUT)).counts
            own = {
                serving[pool]: min(count, MOST) for pool, count in counts.items() if count and pool in serving
            }
            warm = [replace(one, count=counts[pool]) for pool, one in sets.items() if counts.get(pool)]
            of_sets = {
                function: chosen(warm, function, own.get(function, 0)) for function in serving.values()
            }
            return _Warm(app_id, serving.keys(), own, of_sets) if own or warm else None
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
            varied = [item.pool for item in coming if warm.sets.get(item.pool.function_id)]
            new = [item for item in coming if not item.known]
            if new and (wanted or varied):
                await self._insert(connection, app, publication, new)
            return wanted | await self._vary(connection, warm, varied)

    async def _insert(
        self, connection: AsyncConnection, app: AppState, publication: Publication, new: Sequence[ServedPool]
    ) -> None:
        """Store pools that do not serve yet."""
        await secrets.check_there(connection, app.workspace, [item.pool.spec for item in new])
        if made := publication.new_functions.items():
            rows = [{"id": function_id, "app_id": app.id, "name": name} for name, function_id in made]
            await connection.execute(insert(Function), rows)
        retired = {item.pool.id: prepared(item) for item in new}
        await publishing.insert_pools(connection, new, retired, self._clock)
        told = [siblings.told(app.id, publication.version, publication.handles)]
        told += [outbox.put(pool, one.record) for pool, one in retired.items()]
        await outbox.enqueue(connection, told)

    async def _vary(
        self, connection: AsyncConnection, warm: "_Warm", coming: Sequence[Pool]
    ) -> dict[str, int]:
        """Store what is warm of the sets of the version before; return how many containers are wanted."""
        query = select(PoolRow.record).where(PoolRow.id.in_([pool.id for pool in coming]))
        wanted = {}
        for record in (await connection.scalars(query)).all() if coming else ():
            base = records.pool(record)
            for one in warm.sets[base.function_id]:
                pool = await variants.repeat(connection, base, one.given, self._clock, of_url=one.of_url)
                if pool is not None:
                    wanted[pool] = one.count
        return wanted

    async def _ask(self, verb: str, message: object, answer: type[Answer], timeout: float) -> Answer:
        subject = subjects.internal("scheduler", verb)
        data = await self._bus.request(subject, coding.encode(message), timeout=timeout)
        return msgspec.msgpack.decode(data, type=answer)


@dataclass(frozen=True, slots=True)
class VariedSet:
    """A function's set of options and parameters, and how many containers of it are ready."""

    function_id: str
    given: GetVariant
    of_url: bool
    count: int = 0


class _Warm(NamedTuple):
    """An app's pools that serve, and how many containers of each function and of its sets are ready."""

    app_id: str
    serving: AbstractSet[str]
    counts: Mapping[str, int]
    sets: Mapping[str, Sequence[VariedSet]]


def chosen(warm: Sequence[VariedSet], function_id: str, count: int) -> list[VariedSet]:
    """Return the sets of a function that are made ready, those with most containers first.

    With `count` containers of its own it has `MOST` at most.
    """
    left, found = MOST - count, []
    of_function = [one for one in warm if one.function_id == function_id]
    for one in sorted(of_function, key=lambda one: one.count, reverse=True)[:MOST_SETS]:
        if left > 0:
            found.append(replace(one, count=min(one.count, left)))
            left -= one.count
    return found


async def _sets(connection: AsyncConnection, serving: Collection[str]) -> dict[str, VariedSet]:
    """Return the sets of pools that were in use last, by the pool of each."""
    query = select(PoolRow.id, PoolRow.function_id, PoolRow.variation, PoolRow.of_url)
    lately = query.where(PoolRow.variant_of.in_(serving)).order_by(PoolRow.asked_at.desc()).limit(MOST_ASKED)
    return {
        row.id: VariedSet(row.function_id, coding.decode(GetVariant, row.variation), row.of_url)
        for row in (await connection.execute(lately) if serving else ())
    }


def _publishing(functions: Sequence[FunctionSpec]) -> Decide:
    async def decide(connection: AsyncConnection, app: AppState) -> Publication:
        checks.check_functions(functions)
        return await publishing.decide(connection, app, functions)

    return decide
