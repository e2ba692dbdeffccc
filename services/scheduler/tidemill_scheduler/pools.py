"""The pools bucket in memory: what can be called, and what could be until lately.

There may be ten thousand deployed functions, of which few are called at any time. Of each pool only an
outline is kept; records are kept as they came, the ones used last up to a number of bytes, and read again
when they are needed after that.
"""

import asyncio
import hashlib
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tidemill._bus.protocol import BusError
from tidemill._wire.specs import Autoscaling, ClassSpec, ImageSpec, Pool
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.logging import Logger

REMEMBERED = 10_000  # pools that are gone and still known, so that late calls to them can be ended
RECORDS = 16 << 20  # bytes of records that are kept
REWATCH = 0.5  # seconds before the bucket is watched again after an error

# Seconds between the looks for a pool that is called before its record can be seen.
FIND = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class _SpecOutline:
    """The part of a specification that an outline is made of."""

    name: str
    image: ImageSpec = field(default_factory=ImageSpec)
    autoscaling: Autoscaling = field(default_factory=Autoscaling)
    cls: ClassSpec | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def is_incomplete(self) -> bool:
        """Whether the pool has no containers, because its class needs parameters."""
        return self.cls is not None and self.cls.lacks(self.parameters)


@dataclass(frozen=True, slots=True)
class _RecordOutline:
    """The part of a pool's record that an outline is made of."""

    id: str
    app_id: str
    app_name: str
    function_id: str
    workspace: str
    stream: str
    prefix: str
    spec: _SpecOutline
    superseded: bool = False
    variant_of: str = ""


@dataclass(frozen=True, slots=True)
class Outline:
    """What is always known of a pool. `minimum` is how many containers it keeps, `image` the image's key."""

    id: str
    app_id: str
    app_name: str
    function_id: str
    workspace: str
    name: str
    stream: str
    prefix: str
    image: str
    minimum: int
    superseded: bool
    is_variant: bool

    @classmethod
    def of(cls, record: _RecordOutline) -> "Outline":
        """Return a record's outline; what many pools have in common is kept once."""
        spec = record.spec
        return cls(
            record.id,
            record.app_id,
            record.app_name,
            record.function_id,
            sys.intern(record.workspace),
            spec.name,
            sys.intern(record.stream),
            record.prefix,
            sys.intern(hashlib.sha256(repr(spec.image).encode()).hexdigest()),
            0 if record.superseded or spec.is_incomplete else spec.autoscaling.min_containers,
            record.superseded,
            bool(record.variant_of),
        )


@dataclass(slots=True)
class _Records:
    """Encoded records by pool, the ones used last, bounded by their size."""

    size: int = 0
    held: OrderedDict[str, bytes] = field(default_factory=OrderedDict)

    def get(self, pool: str) -> bytes | None:
        if pool in self.held:
            self.held.move_to_end(pool)
        return self.held.get(pool)

    def put(self, pool: str, record: bytes) -> None:
        self.drop(pool)
        self.held[pool] = record
        self.size += len(record)
        while self.size > RECORDS:
            _, oldest = self.held.popitem(last=False)
            self.size -= len(oldest)

    def drop(self, pool: str) -> None:
        self.size -= len(self.held.pop(pool, b""))


class Directory:
    """Every pool by its id, kept by watching the bucket."""

    def __init__(self, bus: ServiceBus, log: Logger) -> None:
        self._bus = bus
        self._log = log
        self._decoder = msgspec.msgpack.Decoder(Pool)
        self._outlines = msgspec.msgpack.Decoder(_RecordOutline)
        self._records = _Records()
        self._serving: dict[str, str] = {}  # function -> the pool that serves it now
        self.pools: dict[str, Outline] = {}
        self.wanting: set[str] = set()  # pools that keep containers
        self.gone: OrderedDict[str, Outline] = OrderedDict()
        self.on_change: Callable[[Outline], None] = ignore
        self.on_gone: Callable[[Outline], None] = ignore
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
        """Return a pool whose record is at hand; `read` gets any other that `pools` has."""
        record = self._records.get(pool)
        try:
            return self._decoder.decode(record) if record is not None else None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._log.error("a pool's record cannot be read", pool=pool, error=str(error))
            return None

    def serving(self, function: str) -> Outline | None:
        """Return the pool that serves a function now: that of its app's newest version."""
        return self.pools.get(self._serving.get(function, ""))

    async def read(self, pool: str) -> Pool | None:
        """Return a pool as the bucket has it now, and keep it."""
        self._take(pool, await self._bus.bucket(streams.POOLS).get(pool))
        return self.get(pool)

    async def find(self, pool: str) -> Pool | None:
        """Return a pool that may have been made a moment ago; waits for it for less than a second."""
        for pause in FIND:
            await asyncio.sleep(pause)
            if found := self.get(pool) or await self.read(pool):
                return found
        return None

    def image(self, pool: str) -> str:
        """Return the key of a pool's image: pools with equal recipes share it."""
        outline = self.pools.get(pool)
        return outline.image if outline else ""

    def _take(self, key: str, value: bytes | None) -> None:
        if not key:
            self.filled.set()
        elif value is None:
            self._drop(key)
        elif self._records.get(key) != value:
            self._put(key, value)

    def _put(self, key: str, value: bytes) -> None:
        try:
            outline = Outline.of(self._outlines.decode(value))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._log.error("a pool's record cannot be read", pool=key, error=str(error))
            return
        self.pools[key] = outline
        self._records.put(key, value)
        self.gone.pop(key, None)
        if outline.minimum:
            self.wanting.add(key)
        else:
            self.wanting.discard(key)
        if outline.is_variant:
            pass
        elif not outline.superseded:
            self._serving[outline.function_id] = key
        elif self._serving.get(outline.function_id) == key:
            del self._serving[outline.function_id]
        self.on_change(outline)

    def _drop(self, key: str) -> None:
        if outline := self.pools.pop(key, None):
            self._records.drop(key)
            self.wanting.discard(key)
            if self._serving.get(outline.function_id) == key:
                del self._serving[outline.function_id]
            self.gone[key] = outline
            while len(self.gone) > REMEMBERED:
                self.gone.popitem(last=False)
            self.on_gone(outline)


def ignore(_pool: Outline) -> None:
    """Do nothing: this replica does not lead."""
