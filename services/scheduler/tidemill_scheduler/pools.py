"""The pools bucket in memory: what can be called, and what could be until lately."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from tidemill._bus.protocol import BusError
from tidemill._wire.control import Pool
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger

REMEMBERED = 10_000  # pools that are gone and still known, so that late calls to them can be ended
REWATCH = 0.5  # seconds before the bucket is watched again after an error

# Seconds between the looks for a pool that is called before its record can be seen.
FIND = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


class Directory:
    """Every pool by its id, kept by watching the bucket."""

    def __init__(self, bus: ServiceBus, log: Logger) -> None:
        self._bus = bus
        self._log = log
        self._decoder = msgspec.msgpack.Decoder(Pool)
        self._images: dict[str, str] = {}
        self._serving: dict[str, str] = {}  # function -> the pool that serves it now
        self.pools: dict[str, Pool] = {}
        self.gone: OrderedDict[str, Pool] = OrderedDict()
        self.on_change: Callable[[Pool], None] = ignore
        self.on_gone: Callable[[Pool], None] = ignore
        self.filled = asyncio.Event()

    async def watch(self) -> None:
        """Follow the bucket for ever."""
        while True:
            try:
                async for key, value in self._bus.bucket(streams.POOLS).watch():
                    self._take(key, value)
            except BusError as error:
                self._log.warning("the pools bucket cannot be watched", error=str(error))
            await asyncio.sleep(REWATCH)

    def get(self, pool: str) -> Pool | None:
        """Return a pool that is known."""
        return self.pools.get(pool)

    def serving(self, function: str) -> Pool | None:
        """Return the pool that serves a function now: that of its app's newest version."""
        return self.pools.get(self._serving.get(function, ""))

    async def read(self, pool: str) -> Pool | None:
        """Return a pool as the bucket has it now, and keep it."""
        self._take(pool, await self._bus.bucket(streams.POOLS).get(pool))
        return self.pools.get(pool)

    async def find(self, pool: str) -> Pool | None:
        """Return a pool that may have been made a moment ago; waits for it for less than a second."""
        for pause in FIND:
            await asyncio.sleep(pause)
            if found := self.pools.get(pool) or await self.read(pool):
                return found
        return None

    def image(self, pool: str) -> str:
        """Return the key of a pool's image: pools with equal recipes share it."""
        return self._images.get(pool, "")

    def _take(self, key: str, value: bytes | None) -> None:
        if not key:
            self.filled.set()
        elif value is None:
            self._drop(key)
        else:
            self._put(key, value)

    def _put(self, key: str, value: bytes) -> None:
        try:
            pool = self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._log.error("a pool's record cannot be read", pool=key, error=str(error))
            return
        if self.pools.get(key) != pool:
            self.pools[key] = pool
            self._images[key] = repr(pool.spec.image)
            self.gone.pop(key, None)
            if not pool.superseded:
                self._serving[pool.function_id] = pool.id
            elif self._serving.get(pool.function_id) == pool.id:
                del self._serving[pool.function_id]
            self.on_change(pool)

    def _drop(self, key: str) -> None:
        if pool := self.pools.pop(key, None):
            self._images.pop(key, None)
            if self._serving.get(pool.function_id) == key:
                del self._serving[pool.function_id]
            self.gone[key] = pool
            while len(self.gone) > REMEMBERED:
                self.gone.popitem(last=False)
            self.on_gone(pool)


def ignore(_pool: Pool) -> None:
    """Do nothing: this replica does not lead."""
