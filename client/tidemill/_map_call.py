"""The loop's side of a map: chunks go out as there is room, outputs come in, whatever their order."""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from tidemill import _chunking, _output, exception
from tidemill._caller import warn
from tidemill._channel import Channel
from tidemill._feed import NEVER, Feed
from tidemill._outcome import End, Failed
from tidemill._results import Results
from tidemill._wire import coding, ids
from tidemill._wire.messages import Blob, Chunk, Payload, Status
from tidemill._wire.payload import INLINE_LIMIT

if TYPE_CHECKING:
    from tidemill._attached import RawOutput
    from tidemill._caller import Caller
    from tidemill._wire.control import FunctionHandle

UNSTORED_BYTES = 32 << 20  # of inputs that the stream has not confirmed
BACKOFF, BACKOFF_MAX = 0.1, 15.0  # seconds before a full queue is tried again
TOLD_AFTER = 1.0  # seconds of backing off after which the user hears of it

_FAILED = (Status.FAILURE, Status.TIMEOUT, Status.CANCELLED)


class Sent:
    """One chunk that is under way."""

    __slots__ = ("blob", "first", "left", "number", "payloads", "since", "size")

    def __init__(self, first: int, payloads: list[Payload], size: int) -> None:
        self.first = first
        self.left = len(payloads)
        self.payloads: list[Payload] | None = payloads  # until the stream has them
        self.size = size
        self.number = 0
        self.since = time.monotonic()
        self.blob: Blob | None = None


class MapCall:
    """An attached call of many inputs."""

    def __init__(
        self,
        caller: "Caller",
        handle: "FunctionHandle",
        feed: Feed,
        channel: Channel[End],
        *,
        ordered: bool,
        return_exceptions: bool,
        origin: tuple[str, str],
    ) -> None:
        self.id = ids.new(ids.CALL)
        self.handle = handle
        self.pace = _chunking.Pace()
        self._caller = caller
        self._feed = feed
        self._channel = channel
        self._results = Results(caller, channel, ordered=ordered, restricted=handle.restrict_output)
        self._results.on_delivered = self._finish_if_done
        self._stop_at_failure = not return_exceptions
        self._origin = origin
        output = _output.current()
        self._progress = output.map_progress(handle.name) if output is not None else None
        self._finished = 0
        self._in_flight: dict[int, Sent] = {}
        self._chunks = 0
        self._next = 0
        self._unstored = 0  # bytes
        self._refused: list[Sent] = []
        self._backoff = 0.0
        self._told = False
        self._widening: asyncio.TimerHandle | None = None
        self._begun = time.monotonic()
        self._starved = False  # the taker is slower than the function: wake us when it took something
        self._pumping = False
        self._registered = False
        self._ended = False

    def start(self) -> None:
        """Begin to send."""
        self._channel.on_taken = self.taken
        self._feed.attach(self.pump)

    # --- out

    def pump(self) -> None:
        """Send what there is room for."""
        if self._ended or self._pumping:
            return
        if self._feed.error is not None:
            self.fail(self._feed.error)
            return
        self._pumping = True
        try:
            while self._send_some():
                pass
        finally:
            self._pumping = False
        self._finish_if_done()

    def _send_some(self) -> bool:
        """Send chunks until the inputs or the room are used up; return whether there is more to do."""
        feed, exhausted = self._feed, self._feed.exhausted
        while not self._ended and self._has_room():
            ready = len(feed.items)
            silent = time.monotonic() - self._begun
            size = self.pace.size(ready, self._chunks, exhausted=exhausted, silent=silent)
            if not size:
                hungry = not ready or (self.pace.known and ready < self.pace.limit)
                if not self.pace.known and self._widening is None:
                    self._widening = self._caller.loop.call_later(_chunking.WIDEN, self._widen)
                return feed.want(max(ready + 1, self.pace.limit if ready else 1) if hungry else NEVER)
            self._send(size)
        feed.want(NEVER)
        return False

    def _widen(self) -> None:
        self._widening = None
        self.pump()

    def _has_room(self) -> bool:
        if self._refused or self._unstored >= UNSTORED_BYTES:
            return False
        in_flight, waiting = len(self._in_flight), self._results.waiting
        room = _chunking.has_room(in_flight, waiting, self._results.mean_bytes)
        self._starved = not room and in_flight + waiting > 0
        return not self._starved

    def _send(self, most: int) -> None:
        feed, payloads, size = self._feed, list[Payload](), 0
        while feed.items and len(payloads) < most:
            length = len(feed.items[0][1])
            if payloads and size + length > _chunking.MAX_CHUNK_BYTES:
                break
            payloads.append(Payload(*feed.pop()))
            size += length
        sent = Sent(self._next, payloads, size)
        self._next += len(payloads)
        self._in_flight.update(dict.fromkeys(range(sent.first, self._next), sent))
        self._chunks += 1
        self._unstored += size
        if not self._registered:
            self._registered = True
            self._caller.begin(self)
        if size > INLINE_LIMIT and len(payloads) == 1:
            self._caller.run(self._store_blob(sent), name=f"store an input of {self.id}")
        else:
            self._publish(sent)

    async def _store_blob(self, sent: Sent) -> None:
        assert sent.payloads is not None
        form, data = sent.payloads[0]
        assert isinstance(data, bytes)
        try:
            sent.blob = await self._caller.put_blob(data)
        except Exception as error:
            self._refuse(sent, error)
        else:
            sent.payloads = [Payload(form, sent.blob)]
            self._publish(sent)

    def _publish(self, sent: Sent) -> None:
        if self._ended or sent.payloads is None:
            return
        sent.since = time.monotonic()  # while the queue was full nothing of it could be missed
        chunk = Chunk.first(
            self.id,
            list(range(sent.first, sent.first + len(sent.payloads))),
            sent.payloads,
            reply=self._caller.reply,
            origin=self._origin,
            collect=self.handle.is_generator,
            method=self.handle.method,
        )
        sent.number = self._caller.submit(
            self.handle,
            self.id,
            sent.first,
            coding.encode(chunk),
            stored=partial(self._stored, sent),
            refused=partial(self._refuse, sent),
        )

    def _stored(self, sent: Sent) -> None:
        self._backoff = 0.0
        was_full = self._unstored >= UNSTORED_BYTES
        self._release(sent)
        if was_full:
            self.pump()

    def _release(self, sent: Sent) -> None:
        if sent.payloads is not None:
            sent.payloads = None
            self._unstored -= sent.size

    def _refuse(self, sent: Sent, error: BaseException) -> None:
        """Try again later what found the queue full; anything else ends the map."""
        if self._ended or not sent.left:
            return
        if not isinstance(error, exception.ResourceExhaustedError):
            self.fail(error)
            return
        if not self._refused:
            self._backoff = min(BACKOFF_MAX, self._backoff * 2 or BACKOFF)
            self._caller.loop.call_later(self._backoff, self._send_refused)
            if self._backoff >= TOLD_AFTER and not self._told:
                self._told = True
                warn(f"the queue of {self.handle.name} is full: its map goes on as there is room")
        self._refused.append(sent)

    def _send_refused(self) -> None:
        refused, self._refused = self._refused, []
        for sent in refused:
            if sent.blob is None and sent.size > INLINE_LIMIT and sent.left == 1:
                self._caller.run(self._store_blob(sent), name=f"store an input of {self.id}")
            else:
                self._publish(sent)
        self.pump()

    # --- in

    def on_outputs(self, items: "list[RawOutput]", seconds: float, container: str) -> None:
        """See `Attached`."""
        pop, add, finished = self._in_flight.pop, self._results.add, 0
        for item in items:
            index, status, (form, data) = item[0], item[1], item[2]
            sent = pop(index, None)
            if sent is None:
                self._caller.dropped += 1
                continue
            finished += 1
            sent.left -= 1
            if not sent.left:
                self._done(sent)
            if status in _FAILED and self._stop_at_failure:
                self._fail_with(status, form, data)
                return
            add(index, status, form, data)
        if finished:
            self._finished += finished
            if self._progress is not None:
                self._progress.update(self._finished, self._next if self._feed.exhausted else None)
            self.pace.observe(finished, seconds, container)
            self._results.flush()
            self.pump()

    def _done(self, sent: Sent) -> None:
        self._chunks -= 1
        self._release(sent)
        if sent.blob is not None:
            self._caller.drop_blob(sent.blob)

    def _fail_with(self, status: int, form: int, data: "bytes | list[object]") -> None:
        """The first failure ends the map, whatever is still missing before it."""
        self._results.flush()
        self._stop()
        self._caller.run(self._end_with(status, form, data), name=f"end {self.id}")

    async def _end_with(self, status: int, form: int, data: "bytes | list[object]") -> None:
        try:
            self._channel.put((await self._caller.outcome(status, form, data),))
        except Exception as error:
            self._channel.put((Failed(error),))
        self._channel.end()

    def on_tick(self, now: float) -> None:  # noqa: ARG002
        """See `Attached`."""
        self._results.flush()

    def oldest(self) -> tuple[int, float] | None:
        """See `Attached`."""
        for sent in self._in_flight.values():
            return sent.number, sent.since
        return None

    # --- the end

    def taken(self) -> None:
        """Note that the taker took something. Called in its thread."""
        if self._starved or self._results.stalled:
            self._caller.loop.call_soon_threadsafe(self._resume)

    def _resume(self) -> None:
        self._results.flush()
        self.pump()

    def _finish_if_done(self) -> None:
        if self._ended or self._feed.items or not self._feed.exhausted or self._feed.error is not None:
            return
        if not self._in_flight and self._results.delivered:
            self._leave()
            self._channel.end()

    def fail(self, error: BaseException) -> None:
        """See `Attached`."""
        if not self._ended:
            self._results.flush()
            self._stop()
            self._channel.put((Failed(error),))
            self._channel.end()

    def close(self) -> None:
        """End the map: nobody takes its results any more."""
        if not self._ended:
            self._stop()
            self._channel.end()

    def _stop(self) -> None:
        self._leave()
        self._feed.stop()
        if self._in_flight:
            self._caller.cancel(self.id, self.handle)
            for sent in set(self._in_flight.values()):
                if sent.blob is not None:
                    self._caller.drop_blob(sent.blob)

    def _leave(self) -> None:
        self._ended = True
        self._caller.end(self)
        if self._progress is not None:
            self._progress.close()
