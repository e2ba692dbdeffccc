"""What arrives on this process's reply subject: every message at least once, in any order.

Messages come over core subscriptions, which are fast and may lose some: over a reconnect, to a slow
reader, to a broken route between servers. What is not stored, its worker sends until it hears that it is
here. The stream has all others, so it is read again whenever something may be missing. What is read again
is known by its sequence: a core message carries none.

The subject is purged as it fills. A message may go when every input that was outstanding when it was
stored has its output; a *mark* remembers up to which sequence and until which submission that is.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from tidemill._bus.protocol import Bus, BusError, Message, Subscription
from tidemill._wire import subjects

PURGE_BYTES = 64 << 20  # received since the last mark
IDLE_BYTES = 1 << 20  # the same, when nothing is outstanding; less is left to `close` and to the stream's age
MARK_HELD = 10.0  # seconds for which a slow input may hold a mark before the stream is read to pass it
LAG = 1.0  # seconds after which a re-read is repeated: the replica that answered may have been behind

_log = logging.getLogger("tidemill")


class Replies:
    """The subscription of one process, its re-reads and its purges."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        subject: str,
        take: Callable[[bytes], None],
        submissions: Callable[[], tuple[int, int]],
    ) -> None:
        """Make it. `submissions` returns the numbers of the last and of the oldest unfinished submission."""
        self._bus = bus
        self._stream = stream
        self._subject = subject
        self._take = take
        self._submissions = submissions
        self._subscriptions: list[Subscription] = []
        self._read_to = 0  # sequence up to which the stream was read
        self._wanted = False
        self._reading: asyncio.Task[None] | None = None
        self._purging: asyncio.Task[None] | None = None
        self._mark: tuple[int, int] | None = None  # (sequence, submission)
        self._marked_at = 0.0
        self._received = 0  # bytes since the last mark
        self.rereads = 0
        self.read_at = time.monotonic()

    async def open(self) -> None:
        """Subscribe; nothing that is published afterwards is missed for good."""
        direct = subjects.outputs(self._subject)
        self._subscriptions += await asyncio.gather(
            self._bus.subscribe(self._subject, self._on_message),
            self._bus.subscribe(direct, lambda message: self._take(message.data)),
        )

    def _on_message(self, message: Message) -> None:
        self._received += len(message.data)
        self._take(message.data)
        if self._received >= PURGE_BYTES:
            self._purge_soon()

    # --- reading again

    def read_again(self) -> None:
        """Read from the stream what may have been missed. Requests during a read lead to one more."""
        self._wanted = True
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_while_wanted(), name="read replies again")

    def read_again_twice(self) -> None:
        """Read now and a moment later."""
        self.read_again()
        asyncio.get_running_loop().call_later(LAG, self.read_again)

    async def _read_while_wanted(self) -> None:
        while self._wanted:
            self._wanted = False
            try:
                await self.read()
            except BusError as error:
                _log.debug("replies cannot be read again yet: %s", error)
                self._wanted = True
                await asyncio.sleep(LAG)

    async def read(self) -> None:
        """Read from the stream, now, what was not read from it before."""
        self.rereads += 1
        async for stored in self._bus.read(self._stream, self._subject, sequence=self._read_to + 1):
            self._take(stored.data)
            self._read_to = max(self._read_to, stored.sequence)
        self.read_at = time.monotonic()

    # --- purging

    def tidy(self, *, idle: bool) -> bool:
        """Purge what nobody needs any more; called now and then. `idle`: nothing is outstanding.

        Returns whether there is more to do later.
        """
        if self._mark is None and self._received < (IDLE_BYTES if idle else PURGE_BYTES):
            return False
        self._purge_soon()
        return True

    def _purge_soon(self) -> None:
        if self._purging is None or self._purging.done():
            self._purging = asyncio.create_task(self._purge(), name="purge replies")

    async def _purge(self) -> None:
        try:
            await self._purge_below_mark()
            if self._mark is None:
                await self._set_mark()
            elif self._received >= PURGE_BYTES or time.monotonic() - self._marked_at >= MARK_HELD:
                await self._pass_mark_by_reading()
            await self._purge_below_mark()
        except BusError as error:
            _log.debug("replies cannot be purged now: %s", error)

    async def _set_mark(self) -> None:
        self._received = 0
        self._marked_at = time.monotonic()
        last = await self._bus.last(self._stream, self._subject)
        if last is not None:
            self._mark = (last.sequence, self._submissions()[0])

    async def _pass_mark_by_reading(self) -> None:
        """A slow input holds the mark: read what it may be missing, then the mark needs nobody."""
        self._received = 0
        await self.read()
        self._mark = (self._read_to, -1)

    async def _purge_below_mark(self) -> None:
        if self._mark is not None and self._submissions()[1] > self._mark[1]:
            sequence, self._mark = self._mark[0], None
            await self._bus.purge(self._stream, self._subject, below=sequence + 1)

    async def close(self) -> None:
        """End the subscription and remove what the stream still holds."""
        for task in (self._reading, self._purging):
            if task is not None:
                task.cancel()
        for subscription in self._subscriptions:
            await subscription.close()
        if self._submissions()[0]:
            await self._bus.purge(self._stream, self._subject)
