"""Key-value buckets of the in-memory bus."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from tidemill._bus.framing import checked
from tidemill._bus.protocol import Stored
from tidemill_common.bus.bucket import OPERATION, is_deleted

if TYPE_CHECKING:
    from tidemill_common.bus.memory import MemoryBus


class MemoryBucket:
    """See `KeyValue`."""

    def __init__(self, bus: "MemoryBus", watchers: set[Callable[[Stored], None]], name: str) -> None:
        self._bus = bus
        self._watchers = watchers
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> bytes | None:
        """See `KeyValue.get`."""
        entry = await self._bus.last(self._stream, self._subject(key))
        return None if entry is None or is_deleted(entry) else entry.data

    async def put(self, key: str, value: bytes) -> int:
        """See `KeyValue.put`."""
        return (await self._bus.store(self._subject(key), value)).sequence

    async def delete(self, key: str) -> None:
        """See `KeyValue.delete`."""
        await self._bus.store(self._subject(key), b"", headers={OPERATION: "DEL"})

    async def items(self) -> dict[str, bytes]:
        """See `KeyValue.items`."""
        entries = [entry async for entry in self._bus.read(self._stream, f"{self._prefix}>")]
        return {self._key(entry): entry.data for entry in entries if not is_deleted(entry)}

    async def watch(self) -> AsyncIterator[tuple[str, bytes | None]]:
        """See `KeyValue.watch`."""
        changes: deque[Stored] = deque()
        arrived = asyncio.Event()

        def take(entry: Stored) -> None:
            if entry.subject.startswith(self._prefix):
                changes.append(entry)
                arrived.set()

        self._watchers.add(take)
        try:
            for key, value in (await self.items()).items():
                yield key, value
            yield "", None
            while True:
                while changes:
                    entry = changes.popleft()
                    yield self._key(entry), None if is_deleted(entry) else entry.data
                arrived.clear()
                await arrived.wait()
        finally:
            self._watchers.discard(take)

    def _subject(self, key: str) -> str:
        return checked(f"{self._prefix}{key}")

    def _key(self, entry: Stored) -> str:
        return entry.subject.removeprefix(self._prefix)
