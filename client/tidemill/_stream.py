"""A generator that runs elsewhere: its pieces come numbered, and only as far as its reader lets it go."""

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from tidemill import exception
from tidemill._bus.protocol import BusError
from tidemill._channel import Channel
from tidemill._outcome import End, Failed
from tidemill._results import Results
from tidemill._wire import coding, ids, payload, subjects
from tidemill._wire.messages import Blob, Chunk, Credit, Format, Payload, Status
from tidemill._wire.payload import INLINE_LIMIT

if TYPE_CHECKING:
    from tidemill._attached import RawOutput
    from tidemill._caller import Caller
    from tidemill._wire.control import FunctionHandle

AHEAD, AHEAD_BYTES = 1_024, 16 << 20  # pieces that the sender may be ahead of what was taken
GRANT, GRANT_BYTES = 256, 4 << 20  # taken since the last grant: then another is worth a message
GRANT_EVERY = 5.0  # seconds: a grant may be lost, and is told again
GAP = 1.0  # seconds after which a missing piece is looked for in the stream
GAP_MAX = 15.0  # seconds after which it is missing for good, if the stream has been read since


class RemoteGenerator:
    """An attached call of one input whose outputs are pieces."""

    def __init__(
        self,
        caller: "Caller",
        handle: "FunctionHandle",
        channel: Channel[End],
        origin: tuple[str, str],
    ) -> None:
        self.id = ids.new(ids.CALL)
        self.handle = handle
        self._caller = caller
        self._channel = channel
        self._results = Results(caller, channel, ordered=True, restricted=handle.restrict_output)
        self._results.on_delivered = self._finish_if_done
        self._origin = origin
        self._blob: Blob | None = None
        self._count: int | None = None  # of pieces, once the sender has said so
        self._last: RawOutput | None = None
        self._sizes: deque[int] = deque()  # of pieces that are not taken
        self._taken = self._taken_bytes = 0
        self._granted = self._granted_bytes = 0
        self._granted_at = self._heard = time.monotonic()
        self._gap_since: float | None = None
        self._submission = 0
        self._ended = False

    async def start(self, form: int, data: bytes) -> None:
        """Send the input."""
        arguments = Payload(form, data)
        if len(data) > INLINE_LIMIT:
            self._blob = await self._caller.put_blob(data)
            arguments = Payload(form, self._blob)
        reply, method = self._caller.reply, self.handle.method
        chunk = Chunk.first(self.id, [0], [arguments], reply=reply, origin=self._origin, method=method)
        self._channel.on_taken = self._on_taken
        self._caller.begin(self)
        self._submission = self._caller.submit(
            self.handle, self.id, 0, coding.encode(chunk), refused=self.fail
        )

    # --- in

    def on_outputs(self, items: "list[RawOutput]", seconds: float, container: str) -> None:  # noqa: ARG002
        """See `Attached`."""
        self._heard = time.monotonic()
        for item in items:
            _, status, (form, data), piece = item[:4]
            if status == Status.YIELD:
                self._on_piece(piece, form, data)
            elif self._last is None:
                self._last = item
                self._count = max(piece, _count_of(status, form, data))
        self._results.flush()
        self._finish_if_done()

    def _on_piece(self, piece: int, form: int, data: Any) -> None:
        if self._results.has(piece) or piece < 0:
            self._caller.dropped += 1
            return
        self._results.add(piece, Status.YIELD, form, data)
        self._sizes.append(len(data) if isinstance(data, bytes) else data[2])
        if not self._results.gap:
            self._gap_since = None
        elif self._gap_since is None:
            self._gap_since = self._heard

    def _finish_if_done(self) -> None:
        if self._ended or self._last is None or self._count is None:
            return
        if self._results.next >= self._count and self._results.delivered:
            self._leave()
            _, status, (form, data), *_ = self._last
            if status == Status.DONE:
                self._channel.end()
            else:
                self._caller.run(self._fail_with(status, form, data), name=f"end {self.id}")

    async def _fail_with(self, status: int, form: int, data: "bytes | list[Any]") -> None:
        try:
            self._channel.put((await self._caller.outcome(status, form, data),))
        except Exception as error:
            self._channel.put((Failed(error),))
        self._channel.end()

    # --- credit

    def _on_taken(self) -> None:
        """Note, in the taker's place, that pieces were taken."""
        self._caller.loop.call_soon_threadsafe(self._count_taken)

    def _count_taken(self) -> None:
        while self._taken < self._channel.taken and self._sizes:
            self._taken_bytes += self._sizes.popleft()
            self._taken += 1
        if self._taken - self._granted >= GRANT or self._taken_bytes - self._granted_bytes >= GRANT_BYTES:
            self._grant()
        if self._results.stalled:
            self._results.flush()

    def _grant(self) -> None:
        if self._ended:
            return
        self._granted, self._granted_bytes = self._taken, self._taken_bytes
        self._granted_at = time.monotonic()
        credit = Credit(self._taken + AHEAD, self._taken_bytes + AHEAD_BYTES)
        try:
            self._caller.bus.publish(
                subjects.credit(self._caller.workspace, self.id, 0), coding.encode(credit)
            )
        except BusError:
            self._granted_at = 0.0  # with the next tick

    # --- time

    def on_tick(self, now: float) -> None:
        """See `Attached`."""
        if now - self._granted_at >= GRANT_EVERY:
            self._grant()
        missing = self._gap_since is not None or (self._last is not None and not self._results.stalled)
        if missing:
            self._gap_since = self._gap_since or now
            if self._caller.replies.read_at - self._gap_since > GAP_MAX:  # and it was not there
                self.fail(exception.DataLossError(f"piece {self._results.next} of the stream is missing"))
            elif now - self._gap_since >= GAP:
                self._caller.replies.read_again()

    def oldest(self) -> tuple[int, float] | None:
        """See `Attached`."""
        return self._submission, self._heard

    # --- the end

    def fail(self, error: BaseException) -> None:
        """See `Attached`."""
        if not self._ended:
            self._leave()
            self._caller.cancel(self.id, self.handle)
            self._channel.put((Failed(error),))
            self._channel.end()

    def close(self) -> None:
        """End it: nobody takes its pieces any more, so the generator is cancelled where it runs."""
        if not self._ended:
            self._leave()
            if self._submission:
                self._caller.cancel(self.id, self.handle)
            self._channel.end()

    def _leave(self) -> None:
        self._ended = True
        self._caller.end(self)
        if self._blob is not None:
            self._caller.drop_blob(self._blob)


def _count_of(status: int, form: int, data: Any) -> int:
    """Return the number of pieces that the end of a stream names as its value."""
    value = payload.decode(form, data) if status == Status.DONE and form == Format.MSGPACK else 0
    return value if isinstance(value, int) else 0
