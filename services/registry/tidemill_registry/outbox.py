"""The transactional outbox: what was decided reaches NATS, whatever process dies in between.

A decision writes its rows and, in the same transaction, what NATS must be told. One publisher at a time
(an advisory lock) reads these in order, tells NATS, then removes them. If it dies in between, the next one
tells them again: puts and deletes are idempotent, events carry an id. Writers of one app hold its row's
lock, so what concerns one key is in the order of its transactions.

`Publisher.reconcile` compares what NATS holds with the tables now and then, and repairs: NATS may have lost
its data, or an operator may have touched it.
"""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from prometheus_client import Counter, Gauge
from sqlalchemy import BigInteger, Row, Text, any_, delete, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._bus.protocol import BusError, Refused
from tidemill.exception import ServiceError
from tidemill_common import metrics, streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_registry import telling
from tidemill_registry.database import UNREACHABLE
from tidemill_registry.schema import App, Outbox, PoolRow

LOCK = 0x746964656F7574  # of whoever publishes
BATCH = 200
SWEEP = 1.0  # seconds between looks for what another replica left behind
RETRY = 0.2  # seconds until a failed pass is tried again
# A stream of several nodes whose leader died has no other for up to ten seconds.
WAIT = 12.0  # seconds that a request waits for its rows to be told
RECONCILE = 300.0  # seconds between comparisons of bucket and tables
# What a pass sent that failed may reach NATS after what the next one says of the same key.
LATE = 30.0  # seconds after the last pass that failed until they are compared, if not before, too


# Losing the removal of what was told only means to tell it again: no need to wait for the disk.
_BEGIN = text(f"SELECT pg_advisory_xact_lock({LOCK}), set_config('synchronous_commit', 'off', true)")


class Entry(NamedTuple):
    """A row of the outbox to be."""

    kind: str
    target: str
    key: str
    body: bytes | None
    headers: Mapping[str, str] = {}


def put(key: str, value: bytes, *, bucket: str = streams.POOLS) -> Entry:
    """Return the entry that sets a pool's record, or another bucket's value."""
    return Entry("put", bucket, key, value)


def remove(key: str, *, bucket: str = streams.POOLS) -> Entry:
    """Return the entry that removes a pool's record, or another bucket's value."""
    return Entry("delete", bucket, key, None)


def event(subject: str, body: bytes) -> Entry:
    """Return the entry that publishes an event."""
    return Entry("event", subject, "", body)


def timer(subject: str, body: bytes, headers: Mapping[str, str]) -> Entry:
    """Return the entry that sets what waits on a subject of TIMERS; its headers say until when."""
    return Entry("timer", subject, "", body, headers)


def untimer(subject: str) -> Entry:
    """Return the entry that removes what waits on a subject of TIMERS."""
    return Entry("untimer", subject, "", None)


async def enqueue(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Write entries in the transaction that decided them."""
    if entries:
        await connection.execute(insert(Outbox), [entry._asdict() for entry in entries])


# Puts right what NATS holds, by what the tables say; returns how many repairs that took.
Comparison = Callable[[AsyncConnection, ServiceBus], Awaitable[int]]


class Publisher:
    """Tells NATS what the outbox holds. One runs in each replica, one at a time works."""

    def __init__(
        self,
        engine: AsyncEngine,
        bus: ServiceBus,
        log: Logger,
        registry: metrics.Registry,
        *,
        compare: Sequence[Comparison] = (),
    ) -> None:
        """`compare` are comparisons of other read models with the tables, made with that of the pools."""
        self._engine = engine
        self._compare = compare
        self._bus = bus
        self._log = log
        self._wake = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._reconcile_at = 0.0
        self._failed_at = -math.inf
        self._told = Counter("tidemill_outbox_published", "Outbox entries told to NATS.", registry=registry)
        self._failed = Counter("tidemill_outbox_failures", "Passes that failed.", registry=registry)
        self._pending = Gauge("tidemill_outbox_pending", "Entries found in the last pass.", registry=registry)
        self._repairs = Counter(
            "tidemill_registry_repairs", "Records that the bucket had wrong.", registry=registry
        )

    async def published(self) -> None:
        """Return when everything committed before this call was told; `ServiceError` if that takes long."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._wake.set()
        try:
            await asyncio.wait_for(done, WAIT)
        except TimeoutError as error:
            raise ServiceError(
                "stored, but NATS could not be told yet", hint="the request can be repeated"
            ) from error
        finally:
            if done in self._waiting:
                self._waiting.remove(done)

    def reconcile_soon(self) -> None:
        """Compare bucket and tables in the next pass."""
        self._reconcile_at = 0.0
        self._wake.set()

    async def run(self) -> None:
        """Publish whenever something was committed here, and every second what others left."""
        while True:
            self._wake.clear()
            try:
                await self._pass()
            except (BusError, *UNREACHABLE) as error:
                self._failed.inc()
                self._log.warning("the outbox waits", error=str(error) or type(error).__name__)
                self._failed_at = asyncio.get_running_loop().time()
                self._reconcile_at = min(self._reconcile_at, self._failed_at + LATE)
                await asyncio.sleep(RETRY)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), SWEEP)

    async def _pass(self) -> None:
        """Tell everything there is. Whoever waited before it began is released when it is told."""
        waiting = tuple(self._waiting)
        more = self._due() or await self._any()
        if not more:
            _release(waiting)
        while more:
            async with self._engine.begin() as connection:  # what was told stays told if the next is not
                await connection.execute(_BEGIN)
                found, problem = await self._batch(connection)
                more = found == BATCH
                if not more and problem is None:
                    _release(waiting)
                    if self._due():
                        await self._reconcile(connection)
            if problem is not None:
                raise problem

    async def _any(self) -> bool:
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            return bool(await connection.scalar(select(select(Outbox.id).exists())))

    async def _batch(self, connection: AsyncConnection) -> tuple[int, Exception | None]:
        """Tell the oldest rows and remove those that NATS has; return how many there were, and a problem."""
        rows = (await connection.execute(select(Outbox).order_by(Outbox.id).limit(BATCH))).all()
        self._pending.set(len(rows))
        told, problem = await telling.tell(self._bus, rows, self._refused)
        if told:
            gone = literal(told, ARRAY(BigInteger))
            await connection.execute(delete(Outbox).where(Outbox.id == any_(gone)))
            self._told.inc(len(told))
        return len(rows), problem

    def _refused(self, row: Row[Outbox], error: Refused) -> None:
        """Take note of a timer that NATS does not set."""
        self._failed.inc()
        hint = "NATS looks for time zones on its own machine: install tzdata there"
        self._log.error("NATS refuses a timer", timer=row.headers, error=str(error), hint=hint)

    def _due(self) -> bool:
        return asyncio.get_running_loop().time() >= self._reconcile_at

    async def _reconcile(self, connection: AsyncConnection) -> None:
        """Make the bucket hold what the tables say. Runs under the lock, with the outbox empty."""
        bucket = self._bus.bucket(streams.POOLS)
        held = {key: hashlib.sha256(value).digest() for key, value in (await bucket.items()).items()}
        live = select(PoolRow.id, func.sha256(PoolRow.record).label("digest")).join(
            App, PoolRow.app_id == App.id
        )
        rows = await connection.execute(live.where(App.state != "stopped"))
        wanted = {row.id: bytes(row.digest) for row in rows}
        for key in held.keys() - wanted.keys():
            await bucket.delete(key)
        wrong = [key for key, digest in wanted.items() if held.get(key) != digest]
        missing = PoolRow.id == any_(literal(wrong, ARRAY(Text)))
        records = await connection.execute(select(PoolRow.id, PoolRow.record).where(missing))
        for row in records:
            await bucket.put(row.id, row.record)
        repairs = len(held.keys() - wanted.keys()) + len(wrong)
        for compare in self._compare:
            repairs += await compare(connection, self._bus)
        if repairs:
            self._repairs.inc(repairs)
            self._log.warning("repaired what NATS holds", repairs=repairs)
        self._reconcile_at = next_comparison(asyncio.get_running_loop().time(), self._failed_at)


def next_comparison(now: float, failed_at: float) -> float:
    """Return when to compare again after a comparison: soon, while what failed passes sent may still come."""
    late = failed_at + LATE
    return late if late > now else now + RECONCILE


def _release(waiting: Sequence["asyncio.Future[None]"]) -> None:
    for done in waiting:
        if not done.done():
            done.set_result(None)
