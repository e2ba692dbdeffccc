"""Records of inputs and dead letters on their way from the streams into the tables.

    EVENTS, DEAD ──> a durable consumer each, shared by the replicas ──> fold ──> one transaction ──> ack

A replica takes what there is, up to a bound, folds it and writes it at once, then rests for twice as long
as that took: however many records there are, they cost the database at most a third of one connection's
time. What does not fit waits in the stream. While little comes it gathers for a second, because what a
transaction costs is mostly the same for one record and for hundreds; who asks for calls cuts that short.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

import msgspec
from prometheus_client import Counter, Histogram
from sqlalchemy import CursorResult, Text, any_, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._bus.protocol import BusError
from tidemill._wire import coding, ids, subjects
from tidemill._wire.calls import RecordBatch
from tidemill._wire.specs import Pool
from tidemill_common import metrics, streams
from tidemill_common.bus.protocol import ConsumerSpec, Delivery, ServiceBus
from tidemill_common.logging import Logger
from tidemill_registry import folding, request_counts, rows
from tidemill_registry.database import UNREACHABLE, refuses
from tidemill_registry.dead_letters import note
from tidemill_registry.rows import PoolInfo
from tidemill_registry.schema import PoolRow

TAKE = 64  # messages written at once
REST = 2.0  # of the time that writing took
GATHER = 1.0  # seconds that records wait for others, unless somebody asks
RETRY = 1.0  # seconds until what could not be written is delivered again
MAX_POOLS = 20_000  # remembered
AGE = 0.25  # seconds that a record may be on its way: batches are sent after 0.1
SETTLE = 2.0  # seconds that a question waits for what is on its way
LOOK = 0.02  # seconds between looks at the consumer while it does
FORGET_AT_ONCE = 10_000  # rows deleted in one transaction

_batch = msgspec.msgpack.Decoder(RecordBatch).decode


class Pools:
    """What is known of pools, by id. It never changes."""

    def __init__(self) -> None:
        self._known: dict[str, PoolInfo] = {}

    async def find(self, connection: AsyncConnection, wanted: Iterable[str]) -> dict[str, PoolInfo]:
        """Return those of the wanted pools that the registry has."""
        wanted = {pool for pool in wanted if "\0" not in pool}  # which PostgreSQL does not take
        missing = [pool for pool in wanted if pool not in self._known]
        if missing:
            if len(self._known) > MAX_POOLS:
                self._known.clear()
                missing = list(wanted)
            query = select(PoolRow.id, PoolRow.record).where(
                PoolRow.id == any_(literal(missing, ARRAY(Text)))
            )
            for row in await connection.execute(query):
                self._known[row.id] = _pool_info(coding.decode(Pool, row.record))
        return {pool: self._known[pool] for pool in wanted if pool in self._known}


def _pool_info(pool: Pool) -> PoolInfo:
    spec = pool.spec
    methods = frozenset(method.name for method in spec.cls.methods) if spec.cls else frozenset[str]()
    return PoolInfo(
        pool.workspace,
        pool.app_id,
        pool.function_id,
        spec.name,
        spec.source.module,
        methods,
        bool(pool.variant_of),
    )


class Recording:
    """Writes what the streams bring. One runs in each replica."""

    def __init__(self, engine: AsyncEngine, bus: ServiceBus, log: Logger, registry: metrics.Registry) -> None:
        self.pools = Pools()
        self._engine = engine
        self._bus = bus
        self._log = log
        self._records: list[Delivery] = []
        self._letters: list[Delivery] = []
        self._wake = asyncio.Event()
        self._asked = asyncio.Event()
        self._pullers = {"": bus.pull(streams.DEAD_CONSUMER, partial(self._on_delivery, self._letters))}
        self._stored = Counter("tidemill_records_stored", "Records of inputs stored.", registry=registry)
        self._lost = Counter(
            "tidemill_records_lost", "Records that were dropped on their way.", registry=registry
        )
        self._refused = Counter("tidemill_records_refused", "Records that were none.", registry=registry)
        self._seconds = Histogram(
            "tidemill_records_write_seconds",
            "Time that writing records took.",
            buckets=metrics.REQUEST_SECONDS,
            registry=registry,
        )

    def attend(self, workspaces: Iterable[str]) -> None:
        """Take the records of these workspaces, too."""
        for workspace in workspaces:
            if workspace not in self._pullers:
                consumer = streams.records_consumer(workspace)
                puller = self._bus.pull(consumer, partial(self._on_delivery, self._records))
                self._pullers[workspace] = puller
                puller.want(TAKE)

    async def run(self) -> None:
        """Write for ever."""
        while True:
            for puller in self._pullers.values():
                puller.want(TAKE)
            await self._wake.wait()
            self._wake.clear()
            if len(self._records) < TAKE:
                await self._gather()
            self._asked.clear()
            batches, letters = self._records.copy(), self._letters.copy()
            self._records.clear()
            self._letters.clear()
            began = time.perf_counter()
            await self._take(batches, letters)
            await asyncio.sleep(REST * (time.perf_counter() - began))

    async def _gather(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), GATHER)

    async def close(self) -> None:
        """Take no more. What was not written is delivered again."""
        for puller in self._pullers.values():
            await puller.close()
        for delivery in (*self._records, *self._letters):
            delivery.nak()

    def _on_delivery(self, held: list[Delivery], delivery: Delivery) -> None:
        held.append(delivery)
        self._wake.set()

    async def _take(self, batches: Sequence[Delivery], letters: Sequence[Delivery]) -> None:
        """Write deliveries and acknowledge them, or hand them back."""
        taken = [*batches, *letters]
        try:
            with self._seconds.time():
                async with self._engine.begin() as connection:
                    await self._write_records(connection, batches)
                    if letters:
                        await note(connection, self.pools, letters)
        except UNREACHABLE as error:
            if not refuses(error):
                self._log.warning("records wait for the database", messages=len(taken), error=str(error))
                for delivery in taken:
                    delivery.nak(RETRY)
                return
            if len(taken) > 1:  # one of them is to blame, and the others do not wait for it
                for batch in batches:
                    await self._take([batch], ())
                for letter in letters:
                    await self._take((), [letter])
                return
            self._log.error("records cannot be written", subject=taken[0].subject, error=str(error))
        for delivery in taken:
            delivery.ack().add_done_callback(_seen)

    async def _write_records(self, connection: AsyncConnection, batches: Sequence[Delivery]) -> None:
        by_workspace: dict[str, list[RecordBatch]] = {}
        for delivery in batches:
            if (batch := self._read(delivery)) is not None:
                by_workspace.setdefault(subjects.workspace_of_event(delivery.subject), []).append(batch)
        for workspace, told in sorted(by_workspace.items()):
            records = [record for batch in told for record in batch.records]
            requests = request_counts.fold(told, time.time())
            named = {record.pool for record in records} | {pool for pool, *_ in requests}
            known = await self.pools.find(connection, named)
            pools = {pool: info for pool, info in known.items() if info.workspace == workspace}
            folded = folding.fold(records, pools, time.time())
            await rows.write(connection, workspace, folded, pools)
            await request_counts.write(connection, workspace, requests, pools)
            self._stored.inc(len(records) - folded.refused)
            self._refused.inc(folded.refused)

    def _read(self, delivery: Delivery) -> RecordBatch | None:
        try:
            batch = _batch(delivery.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._log.error("records cannot be read", subject=delivery.subject, error=str(error))
            return None
        if batch.dropped:
            self._lost.inc(batch.dropped)
        return batch

    # --- for who asks

    async def settled(self, workspace: str) -> None:
        """Return when what has happened in a workspace until now is written, or after a bounded time."""
        with suppress(TimeoutError, BusError):
            async with asyncio.timeout(SETTLE):
                await asyncio.sleep(AGE)
                while await self._behind(streams.records_consumer(workspace)):
                    self._asked.set()
                    await asyncio.sleep(LOOK)

    async def _behind(self, consumer: ConsumerSpec) -> bool:
        state = await self._bus.consumer_state(consumer.stream, consumer.name)
        return state is not None and state.pending + state.ack_pending > 0

    # --- forgetting

    async def forget(self) -> int:
        """Delete some of what is old; return how many rows. A call's id tells when it was made."""
        since = time.time() - folding.RETENTION
        oldest = {"calls": ids.first_at(ids.CALL, since), "minutes": int(since // request_counts.MINUTE)}
        count = 0
        async with self._engine.begin() as connection:
            for statement, kind in _FORGET:
                result: CursorResult[tuple[()]] = await connection.execute(
                    statement, {"oldest": oldest[kind], "limit": FORGET_AT_ONCE}
                )
                count += result.rowcount
        return count


# The inner query walks the beginning of an index; replicas that meet skip each other's rows.
_FORGET = tuple(
    (
        text(
            f"DELETE FROM {table} WHERE ctid = ANY(ARRAY("  # noqa: S608  # of constants
            f"SELECT ctid FROM {table} WHERE {key} < :oldest ORDER BY {key} "
            "LIMIT :limit FOR UPDATE SKIP LOCKED))"
        ),
        kind,
    )
    for table, key, kind in (
        ("inputs", "call_id", "calls"),
        ("input_counts", "call_id", "calls"),
        ("calls", "id", "calls"),
        ("request_counts", "minute", "minutes"),
    )
)


def _seen(answer: "asyncio.Future[None]") -> None:
    if not answer.cancelled():
        answer.exception()
