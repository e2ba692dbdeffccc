"""Streams of generators: pieces out, credit in.

The reader grants credit up to a piece and a byte; the worker passes it on and sees to it that a
container never sends more. Who neither reads nor goes away for a minute ends the stream.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from tidemill._bus.protocol import BusError, Message, Subscription
from tidemill._wire import coding, subjects
from tidemill._wire.messages import Credit
from tidemill_worker.node import Node

WINDOW = Credit(1_024, 16 << 20)  # that a stream begins with
STALLED_AFTER = 65.0  # seconds without credit; the container itself gives up after 60


class Stream:
    """One generator's stream.

    `grant` is called with new credit, `stalled` once when the reader took nothing for a minute.
    """

    def __init__(
        self,
        node: Node,
        workspace: str,
        call: str,
        index: int,
        grant: Callable[[Credit], None],
        stalled: Callable[[], None],
    ) -> None:
        self.pieces = 0
        self._bytes = 0
        self._node = node
        self._credit = WINDOW
        self._grant = grant
        self._stalled = stalled
        self._subject = subjects.credit(workspace, call, index)
        self._subscription: Subscription | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        node.spawn(self._listen(), f"credit {call}.{index}")

    def add(self, first: int, pieces: list[Any]) -> bool:
        """Count pieces that the container sent; False if it may not have sent them."""
        if first != self.pieces:
            return False
        for _, data in pieces:
            if self._spent:
                return False
            self.pieces += 1
            self._bytes += len(data)
        if self._spent and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(STALLED_AFTER, self._stalled)
        return True

    def close(self) -> None:
        """End it: no more credit is heard."""
        self._ended = True
        self._stop_timer()
        if self._subscription is not None:
            self._node.spawn(self._subscription.close(), "end of credit")

    @property
    def _spent(self) -> bool:
        return self.pieces >= self._credit.pieces or self._bytes >= self._credit.bytes

    async def _listen(self) -> None:
        """Hear the reader's credit. What was said before the subscription is said again with the next."""
        while not self._ended:
            try:
                self._subscription = await self._node.bus.subscribe(self._subject, self._on_credit)
                break
            except BusError:
                await asyncio.sleep(1.0)
        if self._ended and self._subscription is not None:
            await self._subscription.close()

    def _on_credit(self, message: Message) -> None:
        try:
            told = coding.decode(Credit, message.data)
        except ValueError as error:
            self._node.log.warning("credit that cannot be read", subject=self._subject, error=str(error))
            return
        credit = Credit(max(told.pieces, self._credit.pieces), max(told.bytes, self._credit.bytes))
        if credit == self._credit or self._ended:
            return
        self._credit = credit
        if not self._spent:
            self._stop_timer()
        self._grant(credit)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
