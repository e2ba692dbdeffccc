"""Leadership among replicas: a key that is written with a time to live, again and again.

    take    replace(expected=0)            the first sequence of a term is its fencing number
    renew   replace(expected=own last)     every 1.5 s, again with the time to live
    lose    own clock: 4 s after the last successful write was *sent*, one second before the key expires

The holder trusts its own monotonic clock only: whatever the server says or does not say, its leadership is
over before anybody else's can begin. Orders carry the term; receivers refuse lower ones.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable

from tidemill._bus.protocol import BusError, WrongSequence
from tidemill_common.bus.protocol import ServiceBus

BUCKET = "leases"
TTL = 5.0  # seconds that the key lives after each write
TRUST = 4.0  # seconds, from the sending of a write, during which its writer leads
INTERVAL = 1.5  # seconds between writes, and between tries to take
AGAIN = 0.25  # seconds until a renewal that failed is tried again
ATTEMPT = 1.0  # seconds until an answer is no longer waited for

_log = logging.getLogger(__name__)


class Lease:
    """One replica's part in the leadership called `name`. `clock` is monotonic, in seconds."""

    def __init__(
        self, bus: ServiceBus, name: str, holder: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bus = bus
        self._name = name
        self._subject = f"$KV.{BUCKET}.{name}"
        # The random part tells this life of the replica from its earlier ones.
        self._value = f"{holder} {secrets.token_hex(8)}".encode()
        self._clock = clock
        self._term: int | None = None
        self._sequence = 0  # of this replica's last write, 0 when the key is not its own
        self._until = 0.0

    @property
    def term(self) -> int | None:
        """The fencing number while this replica leads, else None. Right at every moment."""
        return self._term if self._clock() < self._until else None

    async def holder(self) -> str:
        """Return who leads as the server knows it; empty when nobody does."""
        entry = await self._bus.last_in_bucket(BUCKET, self._name)
        return entry.data.decode().partition(" ")[0] if entry else ""

    async def run(self, lead: Callable[[int], Awaitable[None]]) -> None:
        """Stand for leadership for ever; while it is held, `lead(term)` runs, and is cancelled at its end.

        An error of `lead` ends this too. However it ends, another replica can lead at once.
        """
        try:
            while True:
                await self._attempt()
                if (term := self.term) is not None:
                    await self._lead(lead, term)
                else:
                    await asyncio.sleep(INTERVAL * random.uniform(0.8, 1.2))  # noqa: S311
        finally:
            await self._release()

    async def _lead(self, lead: Callable[[int], Awaitable[None]], term: int) -> None:
        """Run `lead` and renew the lease until one of them ends."""
        _log.info("leading %s in term %d", self._name, term)
        work = asyncio.ensure_future(lead(term))
        delay = INTERVAL
        try:
            while self.term is not None and not work.done():
                await asyncio.wait({work}, timeout=min(delay, self._left()))
                if self.term is not None and not work.done():
                    delay = INTERVAL if await self._attempt() else AGAIN
        finally:
            _log.info("no longer leading %s in term %d", self._name, term)
            self._until = 0.0
            work.cancel()
            await asyncio.wait({work})
            self._term = None
        if not work.cancelled():
            work.result()

    async def _attempt(self) -> bool:
        """Renew the lease, or try to take it; say whether a write succeeded."""
        sent = self._clock()
        try:
            async with asyncio.timeout(min(ATTEMPT, self._left()) if self._term is not None else ATTEMPT):
                sequence = await self._write()
        except (BusError, TimeoutError) as error:
            _log.debug("the lease %s was not written: %s", self._name, error)
            return False
        if sequence is None:
            self._until = 0.0
            return False
        self._sequence = sequence
        self._until = sent + TRUST
        if self._term is None:
            self._term = sequence
        return True

    async def _write(self) -> int | None:
        """Write the key and return its sequence, or None when it is somebody else's."""
        try:
            return await self._replace(self._sequence)
        except WrongSequence:
            pass
        entry = await self._bus.last_in_bucket(BUCKET, self._name)
        if entry is not None and entry.data not in (self._value, b""):
            return None
        if self._term is not None and (entry is None or not entry.data):
            return None  # it expired, or an operator took it away: the term is over
        try:
            # Free, or written by this replica, which then lost the answer.
            return await self._replace(entry.sequence if entry else 0)
        except WrongSequence:
            return None

    async def _replace(self, expected: int) -> int:
        return await self._bus.replace(self._subject, self._value, expected=expected, ttl=TTL)

    async def _release(self) -> None:
        """Leave the key empty: an empty one is free."""
        self._until = 0.0
        sequence, self._sequence = self._sequence, 0
        if not sequence:
            return
        try:
            async with asyncio.timeout(ATTEMPT):
                await self._bus.replace(self._subject, b"", expected=sequence, ttl=1.0)
        except (BusError, TimeoutError) as error:
            _log.info("the lease %s runs out by itself: %s", self._name, error)

    def _left(self) -> float:
        """Return for how long this replica leads without another write."""
        return max(0.0, self._until - self._clock())
