"""The bus as a service sees it: streams, consumers, buckets and leases, on top of the caller's bus."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tidemill._bus.protocol import Bus, Message, Stored

# An endpoint gets the request and returns the answer's bytes; it raises RequestFailed to refuse.
Endpoint = Callable[[Message], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream as a value: JetStream's own field names, sizes in bytes, durations in seconds."""

    name: str
    subjects: tuple[str, ...]
    retention: str = "limits"  # or "workqueue"
    discard: str = "old"  # or "new"
    max_age: float = 0.0
    max_bytes: int = -1
    max_msgs_per_subject: int = -1
    discard_new_per_subject: bool = False
    duplicate_window: float = 120.0
    max_consumers: int = -1
    allow_direct: bool = True
    allow_msg_ttl: bool = False
    allow_msg_schedules: bool = False
    allow_rollup: bool = False
    replicas: int = 1
    storage: str = "file"
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer as a value. Durations in seconds."""

    stream: str
    name: str
    filter: str
    ack_wait: float = 30.0
    max_ack_pending: int = 20_000
    max_waiting: int = 4_096
    inactive_threshold: float = 600.0
    prioritized: bool = True


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """How much work a consumer has: not delivered yet, and delivered but not acknowledged.

    `delivered` counts its deliveries so far, repeats included.
    """

    pending: int
    ack_pending: int
    waiting: int = 0
    delivered: int = 0


class Delivery(Protocol):
    """One message taken from a work queue, leased until it is acknowledged."""

    subject: str
    data: bytes
    ack_subject: str  # names the lease; publishing `-NAK` to it hands the message back
    pending: int  # how many more wait behind it
    redelivered: bool

    @property
    def time(self) -> float:
        """When the stream stored it (the server's unix time)."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers it was published with."""

    def ack(self) -> asyncio.Future[None]:
        """Remove the message from the queue. The future is done when the server has said so.

        Unanswered acks are sent again after a reconnect, before new pulls, until answered.
        """

    def nak(self, delay: float = 0.0) -> None:
        """Hand the message back, for delivery after `delay` seconds."""

    def renew(self) -> None:
        """Start the lease anew (`+WPI`)."""


class Puller(Protocol):
    """A standing pull from one consumer: deliveries come as long as there is credit."""

    def want(self, slots: int, first: int | None = None) -> None:
        """Set how many more deliveries are wanted now, counted from this moment. Overlaps, never blocks.

        `first` of them, all if it is not said, come before those that others only want to have at hand.
        """

    async def close(self) -> None:
        """Pull no more. What still arrives is handed back."""


class KeyValue(Protocol):
    """A bucket of the latest value per key."""

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None."""

    async def put(self, key: str, value: bytes) -> int:
        """Set the value and return its revision."""

    async def delete(self, key: str) -> None:
        """Remove the key."""

    async def items(self) -> dict[str, bytes]:
        """Return all keys with their values."""

    def watch(self) -> AsyncIterator[tuple[str, bytes | None]]:
        """Yield every present (key, value), then ("", None) once, then changes (None: deleted), for ever.

        Survives reconnects by reading the bucket again.
        """


class ServiceBus(Bus, Protocol):
    """What services may do on the bus.

    `on_shut_out` is called when the server has refused to let a lost connection in again.
    """

    on_shut_out: Callable[[], None]

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Make the stream, or bring it to this specification; idempotent."""

    async def ensure_bucket(self, name: str, *, ttl: float = 0.0, replicas: int = 1) -> None:
        """Make a key-value bucket; idempotent. `ttl` in seconds, 0 for none."""

    async def ensure_consumer(self, spec: ConsumerSpec) -> ConsumerState:
        """Make the consumer if it is not there; return its state."""

    async def consumer_state(self, stream: str, name: str) -> ConsumerState | None:
        """Return a consumer's state, or None if it is gone."""

    async def delete_consumer(self, stream: str, name: str) -> bool:
        """Remove a consumer, unless it has un-acknowledged messages; return whether it is gone.

        Those would all be delivered again at once.
        """

    def pull(
        self,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_unwanted: Callable[[Delivery], None] | None = None,
    ) -> Puller:
        """Pull from a consumer, making it when it is missing. Starts without credit.

        What arrives when it is not wanted any more is handed back, or is `on_unwanted`'s to deal with.
        """

    def send_now(self) -> None:
        """Send what was published now, and not at the end of this turn of the loop: somebody waits for it."""

    def soon(self, call: Callable[[], None]) -> None:
        """Run `call` once before this turn's write: what it publishes goes along."""

    def bucket(self, name: str) -> KeyValue:
        """Return a bucket by name."""

    async def replace(self, subject: str, data: bytes, *, expected: int, ttl: float = 0.0) -> int:
        """Store `data` if the subject's last sequence is `expected` (0: none); return the new sequence.

        `WrongSequence` otherwise. `ttl` (whole seconds) lets the message expire.
        """

    async def last_in_bucket(self, bucket: str, key: str) -> Stored | None:
        """Return a bucket's entry with its sequence, from the leader."""

    async def serve(
        self,
        service: str,
        version: str,
        endpoints: Mapping[str, Endpoint],
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Callable[[], Awaitable[None]]:
        """Answer requests (subject or pattern -> endpoint) as a NATS micro service; return what ends it.

        Replicas share a queue group. Each request runs in a task of its own, at most 256 at once.
        """

    async def account(self) -> dict[str, Any]:
        """Return the server's JetStream account information (used by readiness)."""
