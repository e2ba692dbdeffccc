"""Delayed attempts whose time has come move from TIMERS into the inputs of their pool.

NATS keeps the clock: when a timer fires, its message appears on `tm.due.>`, on a durable consumer that
all replicas share. A replica publishes the payload under the input's own key and only then acknowledges,
so that a death in between ends with one input: the second publish of the key is a repeat.

Firings of schedules come the same way; what becomes of them stands in `schedules`.
"""

import asyncio
from collections.abc import Mapping

from tidemill._bus.protocol import AlreadyHeld, BusError, Disconnected, StreamFull
from tidemill._wire import subjects
from tidemill._wire.calls import State
from tidemill._wire.specs import Pool
from tidemill._wire.subjects import InputSubject
from tidemill.exception import InvalidError
from tidemill_common import chunks, streams
from tidemill_common.bus.protocol import Delivery, Puller
from tidemill_scheduler import endings
from tidemill_scheduler.replica import Replica
from tidemill_scheduler.schedules import Firings

SUBJECT_HEADER = "Tidemill-Subject"  # of a timer: the subject that its payload is published on when due

AT_ONCE = 256  # due messages held at the same time
FULL_DELAY = 1.0  # seconds before a due message is tried again when its stream is full
ERROR_DELAY = 5.0  # the same after any other refusal
STOP_TIMEOUT = 5.0  # seconds to finish what is being moved when the replica stops


class DueMover:
    """Moves due attempts. Runs on every replica."""

    def __init__(self, replica: Replica, tasks: asyncio.TaskGroup) -> None:
        self._replica = replica
        self._tasks = tasks
        self._moving: set[asyncio.Task[None]] = set()
        self._firings = Firings(replica)
        self._puller: Puller | None = None

    async def start(self) -> None:
        """Make the consumer if it is not there and begin to pull."""
        await self._replica.bus.ensure_consumer(streams.DUE_CONSUMER)
        self._puller = self._replica.bus.pull(streams.DUE_CONSUMER, self._on_delivery)
        self._puller.want(AT_ONCE)

    async def stop(self) -> None:
        """Pull no more, and finish what is being moved."""
        if self._puller:
            await self._puller.close()
            self._puller = None
        if self._moving:
            await asyncio.wait(self._moving, timeout=STOP_TIMEOUT)

    def _on_delivery(self, delivery: Delivery) -> None:
        task = self._tasks.create_task(self._move(delivery), name=f"due {delivery.subject}")
        self._moving.add(task)
        task.add_done_callback(self._moved)

    def _moved(self, task: asyncio.Task[None]) -> None:
        self._moving.discard(task)
        if self._puller:
            self._puller.want(AT_ONCE - len(self._moving))

    async def _move(self, delivery: Delivery) -> None:
        try:
            outcome = await self._publish(delivery)
        except Disconnected:
            outcome = "disconnected"  # the lease runs out, or the reconnect finds another replica
        except StreamFull:
            outcome = "full"
            _hand_back(delivery, FULL_DELAY)
        except BusError as error:
            outcome = "refused"
            _hand_back(delivery, ERROR_DELAY)
            self._replica.log.warning("a due input cannot be moved", due=delivery.subject, error=str(error))
        self._replica.metrics.due.labels(outcome).inc()

    async def _publish(self, delivery: Delivery) -> str:
        """Publish a due input, or end it if its pool is gone; acknowledge. Returns what was done."""
        if subjects.is_firing(delivery.subject):
            return await self._fire(delivery)
        try:
            subject = delivery.headers[SUBJECT_HEADER]
            target = subjects.parse_inputs(subject)
        except (KeyError, ValueError) as error:
            return await self._bury(delivery, str(error))
        pool = self._replica.directory.get(target.pool) or await self._replica.directory.read(target.pool)
        if pool is None:
            return await self._end(delivery, target)
        try:
            key = subjects.input_key(target.call, target.first, target.attempt)
            ack = await self._replica.bus.store(
                subject, delivery.data, msg_id=key, headers=_passed_on(delivery.headers)
            )
            outcome = "repeated" if ack.duplicate else "moved"
        except AlreadyHeld:
            outcome = "repeated"
        self._ring(pool)
        await delivery.ack()
        return outcome

    async def _fire(self, delivery: Delivery) -> str:
        try:
            outcome = await self._firings.act(delivery)
        except (ValueError, InvalidError) as error:
            return await self._bury(delivery, str(error))
        await delivery.ack()
        return outcome

    def _ring(self, pool: Pool) -> None:
        """Wake the pool as a caller would; its callers ring again each second if this is lost."""
        self._replica.bus.publish(subjects.demand(pool.workspace, pool.id), b"")

    async def _end(self, delivery: Delivery, target: InputSubject) -> str:
        try:
            chunk = chunks.read(delivery.headers[SUBJECT_HEADER], delivery.data, target.workspace)
        except ValueError as error:
            return await self._bury(delivery, str(error))
        await endings.end_chunk(self._replica, target.workspace, chunk, endings.CANCELLATION)
        self._replica.records.ended(target.workspace, target.pool, chunk, State.CANCELLED, endings.CANCELLED)
        self._replica.log.info("a due input was ended: its pool is gone", pool=target.pool, call=target.call)
        await delivery.ack()
        return "ended"

    async def _bury(self, delivery: Delivery, reason: str) -> str:
        """Keep what cannot be read where it can be looked at, instead of delivering it for ever."""
        workspace, call, *_ = (*delivery.subject.split(".")[2:], "unknown", "unknown")
        self._replica.log.error("a due message cannot be read", due=delivery.subject, reason=reason)
        await endings.bury_unreadable(self._replica, workspace, "unknown", call, reason, delivery.data)
        await delivery.ack()
        return "buried"


def _hand_back(delivery: Delivery, delay: float) -> None:
    try:
        delivery.nak(delay)
    except Disconnected:  # the lease runs out instead
        return


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that belong to the input: not the server's own, not the way here."""
    return {
        name: value
        for name, value in headers.items()
        if not name.startswith("Nats-") and name != SUBJECT_HEADER
    }
