"""Further attempts: published before the present one is acknowledged, so that no death loses an input.

failed, retries left     TIMERS, for the delay of the pool's policy        failures + 1
lost with its container  INPUTS at once                                    losses + 1
handed back in part      INPUTS at once                                    nothing used up
"""

import asyncio
from datetime import UTC, datetime, timedelta

from tidemill._bus.protocol import AlreadyHeld, BusError, PubAck
from tidemill._wire import coding, subjects
from tidemill._wire.messages import Chunk, Payload, Try
from tidemill._wire.specs import Pool
from tidemill_worker.leases import Leases
from tidemill_worker.node import Node
from tidemill_worker.work import Work, input_key, input_subject, next_chunk

RETRY_STORE = 1.0  # seconds until a store that was refused is tried again

SUBJECT_HEADER = "Tidemill-Subject"


class Attempts:
    """Publishes what is to be tried again."""

    def __init__(self, node: Node, leases: Leases) -> None:
        self._node = node
        self._leases = leases

    def retry(self, work: Work, pool: Pool, left: dict[int, Payload], delay: float, tried: Try) -> None:
        """Try failed inputs again after a delay. The broker keeps the clock."""
        self._node.records.retried(work, left, tried)
        chunk = next_chunk(work, left, failures=work.chunk.failures + 1, losses=0, tried=tried)
        first = chunk.indices[0]
        at = datetime.now(UTC) + timedelta(seconds=delay)
        headers = {
            "Nats-Schedule": f"@at {at.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}",
            "Nats-Schedule-Target": subjects.due(pool.workspace, chunk.call, first, chunk.attempt),
            SUBJECT_HEADER: input_subject(pool.prefix, chunk),
        }
        timer = subjects.timer(pool.workspace, chunk.call, first, chunk.attempt)
        self._node.metrics.attempts.labels("failure").inc(len(left))
        self._publish(work, chunk, timer, headers, None)

    def after_loss(self, work: Work, pool: Pool, left: dict[int, Payload], tried: Try) -> None:
        """Try inputs again at once that were lost with their container."""
        self._node.records.retried(work, left, tried)
        old = work.chunk
        chunk = next_chunk(work, left, failures=old.failures, losses=old.losses + 1, tried=tried)
        self._node.metrics.attempts.labels("loss").inc(len(left))
        self._publish(work, chunk, input_subject(pool.prefix, chunk), {}, pool)

    def elsewhere(self, work: Work, pool: Pool, left: dict[int, Payload]) -> None:
        """Let another container, here or elsewhere, have inputs that have not started."""
        self._node.metrics.attempts.labels("handed_back").inc(len(left))
        # A web request that comes again is one that was lost with its worker: this one comes anew.
        if work.untouched and work.open == len(left) and work.chunk.method not in pool.spec.webs:
            self._leases.hand_back(work)
            return
        chunk = next_chunk(work, left, failures=work.chunk.failures, losses=work.chunk.losses)
        self._publish(work, chunk, input_subject(pool.prefix, chunk), {}, pool)

    def keep(self, work: Work, subject: str, data: bytes, key: str) -> None:
        """Store something about work before it is acknowledged."""
        work.stores += 1
        self._node.spawn(self._keep(work, subject, data, key), f"keep {key}")

    async def _keep(self, work: Work, subject: str, data: bytes, key: str) -> None:
        while await self._store(subject, data, key, {}) is None:  # noqa: ASYNC110 - not an event
            await asyncio.sleep(RETRY_STORE)
        work.stores -= 1
        self._leases.settle(work)

    def _publish(
        self, work: Work, chunk: Chunk, subject: str, headers: dict[str, str], ring: Pool | None
    ) -> None:
        """Store a chunk; from here on it is the store that keeps the old one from being acknowledged."""
        work.open -= len(chunk.indices)
        work.stores += 1
        self._node.spawn(self._persist(work, chunk, subject, headers, ring), f"attempt {input_key(chunk)}")

    async def _persist(
        self, work: Work, chunk: Chunk, subject: str, headers: dict[str, str], ring: Pool | None
    ) -> None:
        data = coding.encode(chunk)
        stored = await self._store(subject, data, input_key(chunk), headers)
        while stored is None:
            await asyncio.sleep(RETRY_STORE)
            stored = await self._store(subject, data, input_key(chunk), headers)
        work.stores -= 1
        if stored.duplicate and len(chunk.indices) > 1:
            # Another run published under this key, perhaps other inputs: none of ours may get lost.
            self._leases.hand_back(work)
        else:
            self._leases.settle(work)
        if ring:
            self._ring(ring)

    async def _store(self, subject: str, data: bytes, key: str, headers: dict[str, str]) -> PubAck | None:
        """Return the broker's word, or None if it is to be asked again; the lease is renewed meanwhile."""
        try:
            return await self._node.bus.store(subject, data, msg_id=key, headers=headers)
        except AlreadyHeld:
            return PubAck("", 0, duplicate=True)
        except BusError as error:
            self._node.log.warning("an attempt is not stored yet", input=key, error=str(error))
            return None

    def _ring(self, pool: Pool) -> None:
        try:
            self._node.bus.publish(subjects.demand(pool.workspace, pool.id), b"")
        except BusError:
            return  # its callers ring every second
