"""The leader's token buckets: leased to gateways, and known to whoever leads next.

A grant is stored before it is told. A leader that dies in between has given away a slice that nobody got;
the next one begins with what is stored, and so never gives a token twice.
"""

import asyncio
import time
from collections.abc import Callable

from tidemill._bus.protocol import BusError
from tidemill._wire import coding
from tidemill._wire.limits import (
    DEFAULT,
    WORKSPACE,
    Grant,
    LeaseTokens,
    LevelRecord,
    Limit,
    LimitRecord,
    TokensLeased,
    Want,
)
from tidemill.exception import ServiceError
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger
from tidemill_common.token_bucket import Level
from tidemill_scheduler.leasing import Ledger

RETRY = 1.0  # seconds until levels that could not be read are read again
TIDY = 60.0  # seconds between looks for buckets that nobody takes from any more


class TokenLeases:
    """All buckets, for one term of leadership."""

    def __init__(self, bus: ServiceBus, log: Logger, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells unix time: buckets are handed on between machines."""
        self._bus = bus
        self._log = log
        self._clock = clock
        self._limits: dict[str, Limit] = {}
        self._stored: dict[str, Level] = {}
        self._ready = False
        self._ledgers: dict[str, Ledger] = {}
        self._tidied = clock()

    async def run(self) -> None:
        """Read what the leader before left, then follow the limits until cancelled."""
        self._stored = await self._read_levels()
        async for key, value in self._bus.bucket(streams.LIMITS).watch():
            if key:
                self._on_limit(key, value)
            else:
                self._ready = True

    async def lease(self, request: LeaseTokens) -> TokensLeased:
        """Answer `tm.internal.scheduler.lease_tokens`. `ServiceError` if it cannot be stored."""
        if not self._ready:
            raise ServiceError("the levels of the token buckets are not read yet")
        now = self._clock()
        grants = tuple(self._grant(want, now) for want in request.wants)
        keys = dict.fromkeys(want.key for want in request.wants if want.key in self._ledgers)
        try:
            await asyncio.gather(*(self._store(key) for key in keys))
        except BusError as error:
            raise ServiceError("what was granted cannot be stored") from error
        self._tidy(now)
        return TokensLeased(grants)

    def _grant(self, want: Want, now: float) -> Grant:
        ledger = self._ledger(want, now)
        if ledger is None:  # its limit was just removed, which the gateway is about to hear
            return Grant(want.waiting + want.ahead, 0.0)
        return ledger.lease(want, now)

    def _ledger(self, want: Want, now: float) -> Ledger | None:
        limit = self._limits.get(want.key, DEFAULT if want.kind == WORKSPACE else None)
        if limit is None:
            return None
        ledger = self._ledgers.get(want.key)
        if ledger is None:
            level = self._stored.pop(want.key, Level.full(limit, now))
            ledger = self._ledgers[want.key] = Ledger(limit, level)
        ledger.change(limit, now)
        return ledger

    async def _store(self, key: str) -> None:
        level = self._ledgers[key].level
        record = LevelRecord(level.tokens, level.at)
        await self._bus.bucket(streams.LEVELS).put(key, coding.encode(record))

    async def _read_levels(self) -> dict[str, Level]:
        while True:
            try:
                records = await self._bus.bucket(streams.LEVELS).items()
                return {key: _level(record) for key, record in records.items()}
            except (BusError, ValueError) as error:
                self._log.warning("the levels of token buckets cannot be read", error=str(error))
                await asyncio.sleep(RETRY)

    def _on_limit(self, key: str, value: bytes | None) -> None:
        if value is None:
            self._limits.pop(key, None)
            return
        try:
            self._limits[key] = coding.decode(LimitRecord, value).limit
        except ValueError as error:
            self._log.error("a limit's record cannot be read", key=key, error=str(error))

    def _tidy(self, now: float) -> None:
        """Forget buckets that are full: the next who asks finds a full one."""
        if now - self._tidied < TIDY:
            return
        self._tidied = now
        for key in [key for key, ledger in self._ledgers.items() if ledger.is_idle(now)]:
            del self._ledgers[key]


def _level(record: bytes) -> Level:
    stored = coding.decode(LevelRecord, record)
    return Level(stored.tokens, stored.at)
