"""A batched direct get: messages of a stream that arrive one by one on an inbox of their own."""

import asyncio
from collections.abc import Callable

from tidemill._bus import jetstream
from tidemill._bus.framing import parse_headers, status_of
from tidemill._bus.protocol import BusError, NoResponder, Refused, RequestTimeout, Stored

PIECE_TIMEOUT = 5.0  # seconds until the next message of a batch is missed

_END, _NOTHING, _NO_RESPONDERS = 204, 404, 503


class Batch:
    """The answer to one request for a batch. `more` says, at its end, whether the stream has more."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.more = False
        self.ended: asyncio.Future[None] = loop.create_future()
        self.on_close: Callable[[], None] = lambda: None
        self._pieces: list[Stored] = []  # bounded by what one request asks for
        self._arrived = asyncio.Event()
        self.ended.add_done_callback(lambda _: self._arrived.set())

    async def next(self) -> list[Stored]:
        """Return what arrived since the last time; wait while that is nothing; empty at the end."""
        while not self._pieces and not self.ended.done():
            self._arrived.clear()
            try:
                async with asyncio.timeout(PIECE_TIMEOUT):
                    await self._arrived.wait()
            except TimeoutError:
                raise RequestTimeout("a batch of messages stopped coming") from None
        if not self._pieces:
            self.ended.result()
        pieces, self._pieces = self._pieces, []
        return pieces

    def close(self) -> None:
        """Take no more."""
        self.on_close()
        if not self.ended.done():
            self.ended.cancel()
        elif not self.ended.cancelled():
            self.ended.exception()  # seen, or of no interest

    def take(self, _subject: bytes, _reply: bytes, block: bytes, data: bytes) -> None:
        """Take what arrives on the inbox."""
        if self.ended.done():
            return
        status = status_of(block)
        if not status:
            self._pieces.append(jetstream.piece(block, data))
            self._arrived.set()
        elif status == _END:
            self.more = parse_headers(block).get("Nats-Num-Pending", "0") != "0"
            self.ended.set_result(None)
        elif status == _NOTHING:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(_refusal(status, block))


def _refusal(status: int, block: bytes) -> BusError:
    if status == _NO_RESPONDERS:
        return NoResponder("no stream of that name can be read")
    return Refused(status, parse_headers(block).get("Description", ""))
