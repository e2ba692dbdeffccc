"""Records of inputs on their way to EVENTS: off the hot path, in batches, within a bound.

    add ────> batch of its app ── 100 ms, 500 records ──> one message ──> EVENTS ──> the registry
    count ──> numbers of the minute ── 1 s ──────────────────┘

Nobody waits for a record. What the broker does not take in time is dropped and counted: the next batch
says how many are missing.
"""

import asyncio
import time

import msgspec
from prometheus_client import Counter

from tidemill._bus.protocol import BusError, PubAck
from tidemill._wire import failure, subjects
from tidemill._wire.calls import MAX_REASON, InputRecord, RecordBatch, RequestCount
from tidemill_common import metrics
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger

AGE = 0.1  # seconds that a record waits for others
COUNT_AGE = 1.0  # seconds that a number of requests waits for more of them
MINUTE = 60.0
BATCH = 500  # records in one message
BATCH_RUNS = 20_000  # numbers in which they name their inputs
BUDGET = 8 << 20  # bytes that the broker has not confirmed
CLOSE_TIMEOUT = 2.0  # seconds to send the last ones

_encode = msgspec.msgpack.Encoder().encode


class Recorder:
    """Sends the records of one process. `source` is an id of its own, new each time it starts."""

    def __init__(self, bus: ServiceBus, source: str, log: Logger, registry: metrics.Registry) -> None:
        self._bus = bus
        self._source = source
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._batches: dict[tuple[str, str], list[InputRecord]] = {}  # by workspace and app
        self._runs = 0  # in all batches
        self._timer: asyncio.TimerHandle | None = None
        self._minute = 0
        self._requests: dict[tuple[str, str, str], int] = {}  # by workspace, app and pool, in this minute
        self._untold_requests: set[tuple[str, str, str]] = set()
        self._counting: asyncio.TimerHandle | None = None
        self._count = 0
        self._outside: dict[asyncio.Future[PubAck], int] = {}  # bytes of each message
        self._bytes = 0
        self._untold = 0  # records that were dropped since the last batch
        self._sent = Counter("tidemill_records", "Records of inputs sent.", registry=registry)
        self._dropped = Counter("tidemill_records_dropped", "Records of inputs lost.", registry=registry)

    def add(self, workspace: str, app: str, record: InputRecord) -> None:
        """Send a record soon."""
        if self._bytes > BUDGET:
            self._drop(1)
            return
        batch = self._batches.get((workspace, app))
        if batch is None:
            batch = self._batches[workspace, app] = []
        batch.append(record)
        self._runs += len(record.runs)
        if len(batch) >= BATCH or self._runs >= BATCH_RUNS:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(AGE, self.flush)

    def count(self, workspace: str, app: str, pool: str) -> None:
        """Count a request that has succeeded, and tell the number soon."""
        minute = int(time.time() // MINUTE)
        if minute != self._minute:
            self.flush()
            self._minute = minute
            self._requests.clear()
        key = workspace, app, pool
        self._requests[key] = self._requests.get(key, 0) + 1
        self._untold_requests.add(key)
        if self._counting is None:
            self._counting = self._loop.call_later(COUNT_AGE, self.flush)

    def flush(self) -> None:
        """Send what there is now."""
        for timer in (self._timer, self._counting):
            if timer is not None:
                timer.cancel()
        self._timer = self._counting = None
        batches, self._batches, self._runs = self._batches, {}, 0
        counted = self._take_counts()
        for workspace, app in {**batches, **counted}:
            records, counts = batches.get((workspace, app), []), counted.get((workspace, app), ())
            self._send(workspace, app, records, tuple(counts))

    def _take_counts(self) -> dict[tuple[str, str], list[RequestCount]]:
        """Return the numbers that have changed, by workspace and app."""
        counted: dict[tuple[str, str], list[RequestCount]] = {}
        for workspace, app, pool in self._untold_requests:
            number = self._requests[workspace, app, pool]
            counted.setdefault((workspace, app), []).append(RequestCount(pool, self._minute, number))
        self._untold_requests.clear()
        return counted

    async def close(self) -> None:
        """Send the last records; return when the broker has them, or after a bounded time."""
        self.flush()
        if self._outside:
            await asyncio.wait(self._outside, timeout=CLOSE_TIMEOUT)

    def _send(
        self, workspace: str, app: str, records: list[InputRecord], counts: tuple[RequestCount, ...]
    ) -> None:
        subject = subjects.event(workspace, subjects.RECORDS, app)
        missing, self._untold = self._untold, 0
        data = _encode(RecordBatch(self._source, records, missing, counts))
        self._count += 1
        self._bytes += len(data)
        stored = self._bus.store(subject, data, msg_id=f"{self._source}.records.{self._count}")
        self._outside[stored] = len(data)
        keys = [(workspace, app, count.pool) for count in counts]
        stored.add_done_callback(lambda answer: self._stored(len(records), missing, keys, answer))

    def _stored(
        self,
        count: int,
        missing: int,
        requests: list[tuple[str, str, str]],
        answer: "asyncio.Future[PubAck]",
    ) -> None:
        self._bytes -= self._outside.pop(answer, 0)
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            self._sent.inc(count)
            return
        self._untold += missing
        self._untold_requests.update(key for key in requests if key in self._requests)
        self._drop(count)
        level = self._log.warning if isinstance(error, BusError) else self._log.error
        level("records of inputs are lost", records=count, error=str(error))

    def _drop(self, count: int) -> None:
        self._untold += count
        self._dropped.inc(count)


def reason_of(told: bytes) -> str:
    """Return what a failure says, as far as it can be read and stored: user code may have made it."""
    try:
        text = failure.message_of(told)[:MAX_REASON].replace("\0", "")
        return text.encode("utf-8", "replace").decode()
    except Exception:
        return ""
