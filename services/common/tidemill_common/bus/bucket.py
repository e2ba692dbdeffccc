"""Key-value buckets on JetStream, in the layout of NATS' own, so that `nats kv` reads them."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tidemill._bus.framing import checked
from tidemill._bus.protocol import Stored
from tidemill_common.bus.watch import watch

if TYPE_CHECKING:
    from tidemill_common.bus.nats import NatsServiceBus

OPERATION = "KV-Operation"  # the header of an entry that only says that its key was removed


def is_deleted(entry: Stored) -> bool:
    """Say whether an entry only tells that its key was removed."""
    return OPERATION in entry.headers


class NatsBucket:
    """See `KeyValue`."""

    def __init__(self, bus: "NatsServiceBus", name: str) -> None:
        self._bus = bus
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> bytes | None:
        """See `KeyValue.get`."""
        entry = await self._bus.last(self._stream, self._subject(key))
        return None if entry is None or is_deleted(entry) else entry.data

    async def put(self, key: str, value: bytes) -> int:
        """See `KeyValue.put`."""
        # Its own random id lets the bus send it again after a reconnect without writing it twice.
        return (await self._bus.store(self._subject(key), value, msg_id=self._bus.new_id())).sequence

    async def delete(self, key: str) -> None:
        """See `KeyValue.delete`."""
        headers = {OPERATION: "DEL"}
        await self._bus.store(self._subject(key), b"", msg_id=self._bus.new_id(), headers=headers)

    async def items(self) -> dict[str, bytes]:
        """See `KeyValue.items`."""
        found: dict[str, bytes] = {}
        async for entry in self._bus.read(self._stream, f"{self._prefix}>"):
            key = entry.subject.removeprefix(self._prefix)
            if is_deleted(entry):
                found.pop(key, None)
            else:
                found[key] = entry.data
        return found

    def watch(self) -> AsyncIterator[tuple[str, bytes | None]]:
        """See `KeyValue.watch`. Keys that expire are noticed at the next reconnect only."""
        return watch(self._bus, self._stream, self._prefix)

    def _subject(self, key: str) -> str:
        return checked(f"{self._prefix}{key}")
