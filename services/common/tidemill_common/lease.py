"""Leadership among replicas: a key that is written with a time to live, again and again.

    take    replace(expected=0)            first sequence of the term = its fencing number
    renew   replace(expected=own last)     every 1.5 s, again with the time to live
    lose    own clock: 4 s after the last successful renewal was *sent*, one second before the key expires

The holder trusts its own monotonic clock only: whatever the server says or does not say, leadership ends
before anybody else can have it. Orders carry the term; receivers refuse lower ones.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

from tidemill._bus.protocol import BusError, Stored, WrongSequence
from tidemill_common.bus.protocol import ServiceBus

BUCKET = "leases"
TTL = 5.0  # seconds that the key lives after each write
TRUST = 4.0  # seconds after sending a write during which its writer leads
INTERVAL = 1.5  # seconds between renewals, and between tries to take
ATTEMPT = 1.0  # seconds until an answer is no longer waited for

_log = logging.getLogger(__name__)

Told = Callable[[], None]


class Lease:
    """One replica's part in the leadership called `name`.

    `gained` is called when `term` begins, `lost` when it is over: both on the loop, and in turns.
    `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        bus: ServiceBus,
        name: str,
        holder: str,
        *,
        gained: Told = lambda: None,
        lost: Told = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._name = name
        self._subject = f"$KV.{BUCKET}.{name}"
        # The random part tells this life of the replica from its earlier ones.
        self._value = f"{holder} {secrets.token_hex(8)}".encode()
        self._gained = gained
        self._lost = lost
        self._clock = clock
        self._term: int | None = None
        self._sequence = 0
        self._until = 0.0
        self._changed = asyncio.Event()

    @property
    def term(self) -> int | None:
        """The fencing number while this replica leads, else None."""
        if self._term is not None and self._clock() >= self._until:
            self._step_down("its time ran out")
        return self._term

    async def holder(self) -> str:
        """Return who leads, as the server knows it; empty when nobody does."""
        entry = await self._bus.last_in_bucket(BUCKET, self._name)
        return entry.data.decode().partition(" ")[0] if entry else ""

    async def hold(self) -> None:
        """Take the lease whenever it is free and renew it while it is held, for ever."""
        try:
            while True:
                await self._attempt()
                await self._pause()
        finally:
            self._step_down("it stops")

    async def release(self) -> None:
        """Give the leadership up, so that another replica can have it at once."""
        if self._term is None:
            return
        sequence = self._sequence
        self._step_down("it was released")
        try:
            await self._bus.replace(self._subject, b"", expected=sequence, ttl=1.0)
        except BusError as error:
            _log.info("the lease %s runs out by itself: %s", self._name, error)

    async def _attempt(self) -> None:
        """Renew the lease, or try to take it."""
        sent = self._clock()
        try:
            async with asyncio.timeout(ATTEMPT):
                try:
                    sequence = await self._write()
                except WrongSequence:
                    sequence = await self._adopt()
        except (BusError, TimeoutError) as error:
            _log.debug("the lease %s could not be written: %s", self._name, error)
            return
        if sequence is None:
            self._step_down("another replica has it")
            return
        self._sequence = sequence
        self._until = sent + TRUST
        if self._term is None:
            self._term = sequence
            _log.info("leading %s in term %d", self._name, sequence)
            self._gained()

    async def _write(self) -> int:
        return await self._bus.replace(self._subject, self._value, expected=self._sequence, ttl=TTL)

    async def _adopt(self) -> int | None:
        """Find out why a write was refused: what is there may be this replica's own, or free."""
        entry: Stored | None = await self._bus.last_in_bucket(BUCKET, self._name)
        if entry is not None and entry.data == self._value:
            self._sequence = entry.sequence  # the answer to an earlier write was lost
            return await self._write()
        if entry is not None and entry.data:
            return None
        # Free: expired, or released with an empty value. A leader who finds it so has lost it before.
        self._step_down("the lease was lost")
        self._sequence = entry.sequence if entry is not None else 0
        try:
            return await self._write()
        except WrongSequence:
            return None

    async def _pause(self) -> None:
        """Wait for the next turn, but never past the moment when leadership ends."""
        delay = INTERVAL
        if self._term is not None:
            delay = min(delay, max(0.0, self._until - self._clock()))
        await asyncio.sleep(delay)
        _ = self.term  # ends by itself when its time is over

    def _step_down(self, reason: str) -> None:
        self._sequence = 0
        if self._term is not None:
            _log.info("no longer leading %s in term %d: %s", self._name, self._term, reason)
            self._term = None
            self._lost()
