"""What services may do on NATS, on top of the connection that callers have."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from tidemill._bus import jetstream
from tidemill._bus.framing import Handler, publication
from tidemill._bus.nats import NatsBus
from tidemill._bus.protocol import Disconnected, Refused, Stored
from tidemill_common.bus import admin, micro
from tidemill_common.bus.bucket import NatsBucket
from tidemill_common.bus.protocol import (
    ConsumerSpec,
    ConsumerState,
    Delivery,
    Endpoint,
    StreamSpec,
)
from tidemill_common.bus.puller import NatsDelivery, NatsPuller

ACK_TIMEOUT = 120.0  # seconds; an input that is acknowledged late is still not run again
RENEWAL_TIMEOUT = 10.0  # seconds; by then the holder has renewed it again
ACK_PATIENCE = 0.5  # seconds without an answer until it is acknowledged once more


async def connect(
    url: str, user: str = "", password: str = "", *, name: str = "tidemill", timeout: float = 10.0
) -> "NatsServiceBus":
    """Connect to NATS; `Disconnected` if it cannot be done within `timeout` seconds."""
    bus = NatsServiceBus(user)
    await bus.open(url, user, password, name=name, timeout=timeout)
    return bus


_Ack = tuple[str, "asyncio.Future[None]"]  # its subject, and its end


class NatsServiceBus(NatsBus):
    """A service's connection to NATS. Made by `connect`."""

    def __init__(self, user: str = "") -> None:
        super().__init__(user)
        self._held: dict[str, NatsDelivery] = {}  # what was taken and not given back, by ack subject
        self._acks: dict[tuple[str, str], list[_Ack]] = {}  # of this turn of the loop, by stream and consumer
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """See `Bus.close`."""
        self._send_acks()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().close()

    # --- streams and consumers

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """See `ServiceBus.ensure_stream`."""
        configuration = admin.stream(spec)
        try:
            await self.api(f"STREAM.CREATE.{spec.name}", configuration)
        except Refused as error:
            if error.code != jetstream.STREAM_DIFFERS:
                raise
            await self.api(f"STREAM.UPDATE.{spec.name}", configuration)

    async def ensure_bucket(self, name: str, *, ttl: float = 0.0, replicas: int = 1) -> None:
        """See `ServiceBus.ensure_bucket`."""
        await self.ensure_stream(admin.bucket_spec(name, ttl=ttl, replicas=replicas))

    async def ensure_consumer(self, spec: ConsumerSpec) -> ConsumerState:
        """See `ServiceBus.ensure_consumer`."""
        verb, request = admin.consumer(spec)
        return admin.consumer_state(await self.api(verb, request))

    async def consumer_state(self, stream: str, name: str) -> ConsumerState | None:
        """See `ServiceBus.consumer_state`."""
        try:
            return admin.consumer_state(await self.api(f"CONSUMER.INFO.{stream}.{name}"))
        except Refused as error:
            if error.code in (jetstream.NO_CONSUMER, jetstream.NO_STREAM):
                return None
            raise

    async def delete_consumer(self, stream: str, name: str) -> bool:
        """See `ServiceBus.delete_consumer`."""
        state = await self.consumer_state(stream, name)
        if state is None:
            return True
        if state.ack_pending:
            return False
        try:
            await self.api(f"CONSUMER.DELETE.{stream}.{name}")
        except Refused as error:
            if error.code not in (jetstream.NO_CONSUMER, jetstream.NO_STREAM):
                raise
        return True

    async def account(self) -> dict[str, Any]:
        """See `ServiceBus.account`."""
        return await self.api("INFO")

    # --- taking work

    def pull(
        self,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_unwanted: Callable[[Delivery], None] | None = None,
    ) -> NatsPuller:
        """See `ServiceBus.pull`."""
        return NatsPuller(self, spec, on_delivery, on_unwanted)

    def hold(self, delivery: NatsDelivery) -> None:
        """Remember what was taken: its lease is renewed first thing after a reconnect."""
        self._held[delivery.ack_subject] = delivery

    def release(self, delivery: NatsDelivery) -> None:
        """Forget what was handed back."""
        self._held.pop(delivery.ack_subject, None)

    def acknowledge(self, delivery: NatsDelivery) -> "asyncio.Future[None]":
        """See `Delivery.ack`.

        A consumer takes acknowledgements in the order in which they were sent: of those of one turn of the
        loop the last one alone asks for an answer, which answers all.
        """
        self._held.pop(delivery.ack_subject, None)
        if not self._acks:
            self._soon(self._send_acks)
        answer: asyncio.Future[None] = self._loop.create_future()
        answer.add_done_callback(_seen)  # few wait for it
        self._acks.setdefault(delivery.consumer, []).append((delivery.ack_subject, answer))
        return answer

    def _send_acks(self) -> None:
        sending, self._acks = self._acks, {}
        for acks in sending.values():
            *others, (last, _) = acks
            before = tuple(part for subject, _ in others for part in publication(subject, "", "", b"+ACK"))
            answered = self._tell(
                last, b"+ACK", "", jetstream.acknowledged, ACK_TIMEOUT, ACK_PATIENCE, before=before
            )
            answered.add_done_callback(partial(_hand_on, acks))

    def _renew(self) -> None:
        """Renew every lease before anything else is said on a new connection, until it is answered.

        A server that has just started may not listen to its consumers' leases yet.
        """
        for ack_subject in self._held:
            renewal = self._tell(
                ack_subject, b"+WPI", "", jetstream.acknowledged, RENEWAL_TIMEOUT, ACK_PATIENCE
            )
            renewal.add_done_callback(_seen)

    # --- for what is built on this connection

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._connected

    def new_inbox(self) -> str:
        """Return a subject that only this connection listens to."""
        return f"{self._inbox}.o.{next(self._tokens)}"

    def new_id(self) -> str:
        """Return a message id that nobody else uses."""
        return f"{self._inbox[7:]}.{next(self._tokens)}"

    def send_now(self) -> None:
        """See `ServiceBus.send_now`."""
        self._write()

    def listen(self, subject: str, handler: Handler) -> Callable[[], None]:
        """Hand what arrives on a subject to `handler` as it came; return what ends that."""
        sid = self._connection.listen(subject, "", handler)
        return lambda: self._connection.unlisten(sid)

    def soon(self, call: Callable[[], None]) -> None:
        """See `ServiceBus.soon`."""
        self._soon(call)

    def later(self, delay: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Run `call` after some seconds."""
        return self._loop.call_later(delay, call)

    def time(self) -> float:
        """Return the loop's monotonic time."""
        return self._loop.time()

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run something that belongs to this connection and ends with it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- buckets

    def bucket(self, name: str) -> NatsBucket:
        """See `ServiceBus.bucket`."""
        return NatsBucket(self, name)

    async def last_in_bucket(self, bucket: str, key: str) -> Stored | None:
        """See `ServiceBus.last_in_bucket`."""
        return await self.last(f"KV_{bucket}", f"$KV.{bucket}.{key}")

    async def replace(self, subject: str, data: bytes, *, expected: int, ttl: float = 0.0) -> int:
        """See `ServiceBus.replace`."""
        if not self._connected:  # it would wait for a connection, and be out of date by then
            raise Disconnected("not connected to NATS")
        return (await self.store(subject, data, headers=admin.replacement(expected, ttl))).sequence

    # --- answering

    async def serve(
        self,
        service: str,
        version: str,
        endpoints: Mapping[str, Endpoint],
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Callable[[], Awaitable[None]]:
        """See `ServiceBus.serve`."""
        server = micro.MicroService(self, service, version, endpoints, metadata or {})
        await server.start()
        return server.stop


def _seen(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


def _hand_on(acks: list[_Ack], answered: "asyncio.Future[Any]") -> None:
    """Give each acknowledgement the answer that all of them have."""
    error = None if answered.cancelled() else answered.exception()
    for _, answer in acks:
        if answer.done():
            continue
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(None)
