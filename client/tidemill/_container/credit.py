"""How far a generator may go before its reader has taken what it was sent."""

import time
from _queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from tidemill.exception import TimeoutError as StreamTimeoutError

if TYPE_CHECKING:
    import asyncio

WINDOW_PIECES = 1_024
WINDOW_BYTES = 16 << 20
PATIENCE = 60.0  # seconds without credit before the stream ends


class Credit:
    """The credit of one stream. Grants are cumulative, so a repeat does no harm.

    A piece may go as long as both counts are below their limits: one piece alone may exceed them.
    """

    def __init__(self) -> None:
        self.pieces = 0
        self._bytes = 0
        self._may_pieces = WINDOW_PIECES
        self._may_bytes = WINDOW_BYTES
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._waiter: asyncio.Future[None] | None = None

    def take(self, size: int) -> int:
        """Count a piece that is sent; return its number."""
        number = self.pieces
        self.pieces = number + 1
        self._bytes += size
        return number

    def is_open(self) -> bool:
        """Return whether the next piece may go."""
        return self.pieces < self._may_pieces and self._bytes < self._may_bytes

    # --- the reading thread

    def grant(self, pieces: int, size: int) -> None:
        """Raise the limits, and wake whoever waits for that."""
        self._may_pieces = max(self._may_pieces, pieces)
        self._may_bytes = max(self._may_bytes, size)
        self.ring()

    def ring(self) -> None:
        """Have a waiting thread look again."""
        if self._bell.empty():
            self._bell.put(None)

    # --- who sends

    def wait(self, until: float) -> None:
        """Block until something has changed; `TimeoutError` when nothing did until then (monotonic)."""
        try:
            self._bell.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            raise out_of_patience() from None

    async def wait_on_loop(self, until: float) -> None:
        """Do as `wait`, on the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        try:
            async with asyncio.timeout_at(until + loop.time() - time.monotonic()):
                await self._waiter
        except TimeoutError:
            raise out_of_patience() from None
        finally:
            self._waiter = None

    def wake_on_loop(self) -> None:
        """Wake `wait_on_loop`. Called on the loop."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def out_of_patience() -> StreamTimeoutError:
    """Return the error of a stream whose reader has gone silent."""
    return StreamTimeoutError(f"nobody has read the stream for {PATIENCE:.0f} seconds")
