"""What containers produced, on its way to the callers: packed, stored, then the input is acknowledged.

attached calls   `Outputs` to the caller, past the stream where it says so (see `direct`); each message
                 closed at 256 KiB
kept calls       one output on its own subject; the first one there wins
above the limit  the payload goes into the object store before
"""

import asyncio
import itertools

import msgspec

from tidemill._bus import blobs
from tidemill._bus.protocol import AlreadyHeld, BusError, PubAck
from tidemill._wire import failure, subjects
from tidemill._wire.messages import Blob, Format, Status
from tidemill._wire.payload import INLINE_LIMIT, MESSAGE_LIMIT
from tidemill_worker.direct import Direct, OutputMessage
from tidemill_worker.leases import Leases
from tidemill_worker.node import Node
from tidemill_worker.work import Work

RETRY_STORE = 1.0  # seconds until a store that was refused is tried again
_OVERHEAD = 32  # bytes of an output beside its payload

_encode = msgspec.msgpack.Encoder().encode

# An output as it is packed: the fields of `Output`, without the cost of making one.
Item = tuple[int, int, tuple[int, "bytes | Blob"], int]


class Outbox:
    """Stores outputs and settles the work they belong to."""

    def __init__(self, node: Node, leases: Leases) -> None:
        self._node = node
        self._leases = leases
        self._direct = Direct(node, self._settle, self._store)
        # Never the same for two messages: two runs of one attempt may group their outputs differently.
        self._run = node.id[-16:]
        self._count = itertools.count(1)
        self._statuses = {status: node.metrics.outputs.labels(status.name.lower()) for status in Status}

    async def listen(self) -> None:
        """Hear what callers have."""
        await self._direct.listen()

    def hurry(self) -> None:
        """Let no output wait for its caller any more; see `Direct.hurry`."""
        self._direct.hurry()

    def finish(
        self, work: Work, items: list[Item], seconds: float, container: str, *, alone: bool = False
    ) -> None:
        """Send terminal outputs; the work is acknowledged when they, and all others, are stored.

        A response that is `alone` leaves before anything else is done: all that follows would delay it.
        """
        work.open -= len(items)
        self.send(work, items, seconds, container)
        if alone:
            self._node.bus.send_now()
        for item in items:
            self._statuses[Status(item[1])].inc()
        self._node.records.finished(work, items, seconds, container)

    def send(self, work: Work, items: list[Item], seconds: float, container: str) -> None:
        """Send outputs, terminal or not."""
        large = [item for item in items if len(item[2][1]) > INLINE_LIMIT]
        if large:
            work.stores += 1
            self._node.spawn(self._send_large(work, items, seconds, container), "large outputs")
        elif not work.chunk.reply:
            self._keep(work, items, container)
        else:
            self._reply(work, items, seconds, container)

    def end(self, work: Work, indices: list[int], status: Status, data: bytes, container: str = "") -> None:
        """End inputs with a failure of our own."""
        items: list[Item] = [(index, status, (Format.FAILURE, data), 0) for index in indices]
        self.finish(work, items, 0.0, container)

    async def _send_large(self, work: Work, items: list[Item], seconds: float, container: str) -> None:
        items = list(await asyncio.gather(*(self._put(work.workspace, item) for item in items)))
        self.send(work, items, seconds, container)
        work.stores -= 1
        self._leases.settle(work)

    async def _put(self, workspace: str, item: Item) -> Item:
        """Return an output whose payload fits into a message."""
        index, status, (form, data), piece = item
        if not isinstance(data, bytes) or len(data) <= INLINE_LIMIT:
            return item
        while True:
            try:
                return index, status, (form, await blobs.put(self._node.bus, workspace, data)), piece
            except BusError as error:
                self._node.log.warning("a large output is not stored yet", error=str(error))
                await asyncio.sleep(RETRY_STORE)

    def _reply(self, work: Work, items: list[Item], seconds: float, container: str) -> None:
        batch: list[Item] = []
        size, each = 0, seconds / len(items)
        for item in items:
            length = len(item[2][1]) + _OVERHEAD
            if batch and size + length > MESSAGE_LIMIT:
                self._send_batch(work, work.chunk.reply, batch, each, container)
                batch, size = [], 0
            batch.append(item)
            size += length
        self._send_batch(work, work.chunk.reply, batch, each, container)

    def _keep(self, work: Work, items: list[Item], container: str) -> None:
        """Store each result under its own name. Pieces of a stream have no such place."""
        for item in items:
            if item[1] != Status.YIELD:
                subject = subjects.result(work.workspace, work.chunk.call, item[0])
                self._send_batch(work, subject, [item], 0.0, container)

    def _send_batch(self, work: Work, subject: str, batch: list[Item], each: float, container: str) -> None:
        chunk, number = work.chunk, next(self._count)
        direct = chunk.direct and subject == chunk.reply
        way = (self._node.id, number) if direct else ()
        data = _encode((chunk.call, chunk.attempt, batch, each * len(batch), container, *way))
        message = OutputMessage(work, subject, data, f"{self._run}.{number}")
        work.stores += 1
        if direct:
            self._direct.send(number, message)
        else:
            self._store(message)

    def _store(self, message: OutputMessage) -> None:
        def stored(answer: "asyncio.Future[PubAck]") -> None:
            self._stored(message, answer)

        self._node.bus.store(message.subject, message.data, msg_id=message.msg_id).add_done_callback(stored)

    def _stored(self, message: OutputMessage, answer: "asyncio.Future[PubAck]") -> None:
        if answer.cancelled():
            return  # the worker ends; the lease brings the input to another
        error = answer.exception()
        if error is not None and not isinstance(error, AlreadyHeld):
            self._node.log.warning("outputs are not stored yet", subject=message.subject, error=str(error))
            asyncio.get_running_loop().call_later(RETRY_STORE, self._store, message)
            return
        if error is not None:
            self._node.metrics.rejected.inc()  # another run was first: its result stands
        self._settle(message)

    def _settle(self, message: OutputMessage) -> None:
        message.work.stores -= 1
        self._leases.settle(message.work)


CANCELLED = failure.from_text("InputCancellation", "the input was cancelled")
