"""Whether the message broker can be reached: who needs it is told at once that it cannot be."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tidemill_common.bus.protocol import ServiceBus
from tidemill_gateway import problems


class Broker:
    """What this process knows about its connection, and the waits that end with it."""

    def __init__(self, bus: ServiceBus) -> None:
        self._is_there = True
        self._waits: set[asyncio.Timeout] = set()
        self._postponed: list[Callable[[], None]] = []
        bus.on_disconnect(self._lose)
        bus.on_reconnect(self._find)

    def check(self) -> None:
        """Raise `Problem` while it cannot be reached."""
        if not self._is_there:
            raise problems.unreachable()

    @asynccontextmanager
    async def needed(self) -> AsyncIterator[None]:
        """Do what cannot succeed without it; raises `Problem` in the moment in which it is lost."""
        self.check()
        try:
            async with asyncio.timeout(None) as wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if not wait.expired():
                raise
            raise problems.unreachable() from None

    def when_there(self, do: Callable[[], None]) -> None:
        """Call `do` now, or else when it is back: after what waits to be sent to it."""
        if self._is_there:
            do()
        else:
            self._postponed.append(do)

    def _lose(self) -> None:
        self._is_there = False
        now = asyncio.get_running_loop().time()
        waits, self._waits = self._waits, set()  # each ends once, however long that takes it
        for wait in waits:
            wait.reschedule(now)

    def _find(self) -> None:
        self._is_there = True
        postponed, self._postponed = self._postponed, []
        for do in postponed:
            do()
