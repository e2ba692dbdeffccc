"""The output of user code on its way to LOGS: in batches, in order, within a bound.

A batch leaves after 50 ms, at 256 KiB, or before the outputs of the input it belongs to, so that a
caller sees the text before the result. What the broker does not take in time is dropped, and said so as
soon as there is room again.
"""

import asyncio
import codecs
import time

import msgspec

from tidemill._bus.protocol import BusError, PubAck
from tidemill._wire import subjects
from tidemill._wire.messages import LogRecord
from tidemill._wire.specs import Pool
from tidemill_worker.node import Node

FLUSH_AFTER = 0.05  # seconds
BATCH = 256 * 1024  # bytes of text in one message
BUDGET = 8 << 20  # bytes of a container's output that the broker has not confirmed
_OVERHEAD = 96  # bytes of a record beside its text

STDOUT, STDERR, OURS = 1, 2, 3

_encode = msgspec.msgpack.Encoder().encode


class Log:
    """The output of one container."""

    def __init__(self, node: Node, pool: Pool, container: str) -> None:
        self._node = node
        self._pool = pool
        self._container = container
        self._subject = subjects.logs(pool.workspace, pool.app_id, pool.id, container)
        self._loop = asyncio.get_running_loop()
        self._records: list[LogRecord] = []
        self._size = 0  # of the batch
        self._outside = 0  # bytes that the broker has not confirmed
        self._drops = False  # whether something was dropped that is not told yet
        self._dropped = 0  # ends of lines in it
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0
        self._decoders = {
            stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in (STDOUT, STDERR)
        }

    def write(self, stream: int, text: str, when: float, input_id: str) -> None:
        """Take some output. Container code says all of this: whatever it is, it must fit a record."""
        if stream not in (STDOUT, STDERR) or not isinstance(text, str) or not isinstance(input_id, str):
            raise ValueError("not a piece of output")
        when = float(when)
        while len(text) > BATCH // 4:  # of up to four bytes a character
            self._add(stream, text[: BATCH // 4], when, input_id)
            text = text[BATCH // 4 :]
        if text:
            self._add(stream, text, when, input_id)

    def write_bytes(self, stream: int, data: bytes, input_id: str) -> None:
        """Take output that came through a pipe; a character may be cut in two there."""
        self.write(stream, self._decoders[stream].decode(data), time.time(), input_id)

    def say(self, text: str) -> None:
        """Add a line of our own."""
        self._add(OURS, text if text.endswith("\n") else f"{text}\n", time.time(), "")

    def flush(self) -> None:
        """Send what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._records:
            return
        data, size = _encode(self._records), self._size
        self._records, self._size = [], 0
        self._count += 1
        self._outside += size
        stored = self._node.bus.store(self._subject, data, msg_id=f"{self._container}.{self._count}")
        stored.add_done_callback(lambda answer: self._stored(size, answer))

    def _add(self, stream: int, text: str, when: float, input_id: str) -> None:
        if self._is_full:
            self._drop(text)
            return
        self._tell_drops()
        self._records.append(LogRecord(stream, text, when, input_id, self._pool.spec.name, self._container))
        self._size += len(text) + _OVERHEAD
        if self._size >= BATCH // 2:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_AFTER, self.flush)

    @property
    def _is_full(self) -> bool:
        return self._outside + self._size > BUDGET

    def _drop(self, text: str) -> None:
        """Leave a piece out. Pieces are not lines: of a line that is torn its end counts."""
        lines = text.count("\n")
        self._drops = True
        self._dropped += lines
        self._node.metrics.dropped.inc(lines)

    def _tell_drops(self) -> None:
        """Say what is missing here."""
        if self._drops and not self._is_full:
            note = f"[{max(1, self._dropped)} lines dropped]\n"
            self._drops, self._dropped = False, 0
            self._add(OURS, note, time.time(), "")

    def _stored(self, size: int, answer: "asyncio.Future[PubAck]") -> None:
        self._outside -= size
        self._tell_drops()
        if answer.cancelled() or not (error := answer.exception()):
            return
        level = self._node.log.warning if isinstance(error, BusError) else self._node.log.error
        level("output of a container is lost", container=self._container, error=str(error))
