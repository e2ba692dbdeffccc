"""The bus without a server: every part in one process, with a clock that tests can move.

It passes the same contract tests as the bus on NATS. What it lacks is what NATS is for: nothing is
copied, and nothing survives the process.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from tidemill._bus.core import register, service_refusal
from tidemill._bus.framing import NO_HEADERS, checked
from tidemill._bus.jetstream import NO_CONSUMER, NO_STREAM
from tidemill._bus.protocol import (
    BusError,
    Disconnected,
    Message,
    NoResponder,
    PubAck,
    Refused,
    RequestTimeout,
    Stored,
    TooLarge,
)
from tidemill_common.bus import admin
from tidemill_common.bus.clock import Clock, RealClock
from tidemill_common.bus.memory_bucket import MemoryBucket
from tidemill_common.bus.memory_consumer import MemoryPuller
from tidemill_common.bus.memory_stream import MemoryStream, matches
from tidemill_common.bus.micro import MicroService
from tidemill_common.bus.protocol import ConsumerSpec, ConsumerState, Delivery, Endpoint, StreamSpec
from tidemill_common.bus.puller import hand_back

MAX_PAYLOAD = 2 << 20  # bytes, as the real server is configured

Listener = Callable[[Message], None]


class MemoryServer:
    """What all connections share: subscriptions and streams."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or RealClock()
        self.streams: dict[str, MemoryStream] = {}
        self.watchers: set[Callable[[Stored], None]] = set()
        self.subscriptions: dict[object, MemorySubscription] = {}

    def connect(self) -> "MemoryBus":
        """Return a new connection."""
        return MemoryBus(self)

    def stream(self, name: str) -> MemoryStream:
        """Return a stream; `Refused` when there is none of that name."""
        if name not in self.streams:
            raise Refused(NO_STREAM, "stream not found")
        return self.streams[name]

    def ensure_stream(self, spec: StreamSpec) -> None:
        """Make a stream, or change it."""
        if spec.name in self.streams:
            self.streams[spec.name].spec = spec
        else:
            self.streams[spec.name] = MemoryStream(spec, self.clock, self._stored)

    def delete_consumer(self, stream: str, name: str) -> None:
        """Forget a consumer, as the server does with one that nobody uses."""
        if self.stream(stream).consumers.pop(name, None) is None:
            raise Refused(NO_CONSUMER, "consumer not found")

    def publish(self, message: Message) -> bool:
        """Hand a message to everybody who listens; say whether anybody does."""
        if message.subject.startswith("$JS.ACK."):
            self._order(message)
            return True
        interested = [one for one in self.subscriptions.values() if matches(one.subject, message.subject)]
        chosen = [one for one in interested if not one.queue]
        queues = {one.queue for one in interested if one.queue}
        chosen += [secrets.choice([one for one in interested if one.queue == queue]) for queue in queues]
        for one in chosen:
            one.deliver(message)
        return bool(chosen)

    def store(self, message: Message) -> PubAck:
        """Publish into a stream. Subscribers see it whether it is accepted or not, as with NATS."""
        self.publish(message)
        for stream in self.streams.values():
            if stream.takes(message.subject):
                return stream.store(message.subject, message.data, message.headers)
        raise NoResponder(f"no stream takes {message.subject}")

    def _order(self, message: Message) -> None:
        """Take an acknowledgement that was published by hand."""
        _, _, stream, name, _, sequence, *_ = message.subject.split(".")
        consumer = self.stream(stream).consumers.get(name)
        if consumer is None:
            return
        orders = {b"+ACK": consumer.ack, b"-NAK": consumer.nak, b"+WPI": consumer.renew}
        orders[message.data.split()[0] if message.data else b"+ACK"](int(sequence))

    def _stored(self, message: Stored) -> None:
        for watcher in list(self.watchers):
            watcher(message)


class MemorySubscription:
    """See `Subscription`."""

    def __init__(self, server: MemoryServer, subject: str, queue: str, callback: Listener) -> None:
        self.subject = subject
        self.queue = queue
        self._server = server
        self._callback: Listener | None = callback
        self._loop = asyncio.get_running_loop()
        server.subscriptions[self] = self

    def deliver(self, message: Message) -> None:
        """Call back in the loop's next turn."""
        self._loop.call_soon(self._call, message)

    async def close(self) -> None:
        """See `Subscription.close`."""
        self._callback = None
        self._server.subscriptions.pop(self, None)

    async def drain(self) -> None:
        """See `Subscription.drain`."""
        self._server.subscriptions.pop(self, None)
        await asyncio.sleep(0)  # what was delivered in this turn of the loop is called in the next
        self._callback = None

    def _call(self, message: Message) -> None:
        if self._callback is not None:
            self._callback(message)


class MemoryBus:
    """One connection to a `MemoryServer`. `disconnect` and `reconnect` play an outage of this connection."""

    def __init__(self, server: MemoryServer) -> None:
        self.max_payload = MAX_PAYLOAD
        self.on_shut_out: Callable[[], None] = lambda: None
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._connected = True
        self._waiting: list[tuple[Message, asyncio.Future[PubAck]]] = []  # stores, for the reconnect
        self._subscriptions: list[MemorySubscription] = []
        self._requests: set[asyncio.Future[Message]] = set()
        self._pullers: list[MemoryPuller] = []
        self._reconnect_callbacks: dict[object, Callable[[], None]] = {}
        self._disconnect_callbacks: dict[object, Callable[[], None]] = {}

    def disconnect(self) -> None:
        """Lose the connection."""
        self._connected = False
        for request in self._requests:
            if not request.done():
                request.set_exception(Disconnected("the connection was lost"))
        for callback in list(self._disconnect_callbacks.values()):
            callback()

    def reconnect(self) -> None:
        """Have the connection back."""
        self._connected = True
        waiting, self._waiting = self._waiting, []
        for message, future in waiting:
            self._store(message, future)
        for callback in list(self._reconnect_callbacks.values()):
            callback()

    async def close(self) -> None:
        """See `Bus.close`."""
        for subscription in self._subscriptions:
            await subscription.close()
        for puller in self._pullers:
            await puller.close()
        self._disconnect_callbacks.clear()
        self.disconnect()

    # --- the caller's bus

    def soon(self, call: Callable[[], None]) -> None:
        """See `ServiceBus.soon`."""
        self._loop.call_soon(call)

    def send_now(self) -> None:
        """See `ServiceBus.send_now`. Nothing waits for the end of a turn here."""

    def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """See `Bus.publish`."""
        self._check_connected()
        if len(data) > self.max_payload:
            raise TooLarge(f"a message of {len(data)} bytes: the bus takes {self.max_payload}")
        self._server.publish(Message(checked(subject), data, reply, headers or NO_HEADERS))

    def store(
        self, subject: str, data: bytes, *, msg_id: str = "", headers: Mapping[str, str] | None = None
    ) -> "asyncio.Future[PubAck]":
        """See `Bus.store`."""
        future: asyncio.Future[PubAck] = self._loop.create_future()
        headers = {"Nats-Msg-Id": msg_id, **(headers or {})} if msg_id else headers
        message = Message(checked(subject), data, "", headers or NO_HEADERS)
        if len(data) > self.max_payload:
            future.set_exception(TooLarge(f"a message of {len(data)} bytes"))
        elif self._connected:
            self._store(message, future)
        else:
            self._waiting.append((message, future))
        return future

    def _store(self, message: Message, future: "asyncio.Future[PubAck]") -> None:
        if future.done():
            return
        try:
            future.set_result(self._server.store(message))
        except BusError as error:
            future.set_exception(error)

    async def request(
        self, subject: str, data: bytes, *, timeout: float = 5.0, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """See `Bus.request`."""
        self._check_connected()
        inbox = f"_INBOX.{secrets.token_hex(11)}"
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._requests.add(answer)
        subscription = MemorySubscription(self._server, inbox, "", lambda reply: _answer(answer, reply))
        try:
            if not self._server.publish(Message(checked(subject), data, inbox, headers or NO_HEADERS)):
                raise NoResponder(f"nobody answers requests on {subject}")
            async with asyncio.timeout(timeout):
                reply = await answer
        except TimeoutError:
            raise RequestTimeout(f"no answer from {subject}") from None
        finally:
            self._requests.discard(answer)
            await subscription.close()
        if refusal := service_refusal(reply.headers, reply.data):
            raise refusal
        return reply.data

    async def subscribe(self, subject: str, callback: Listener, *, queue: str = "") -> MemorySubscription:
        """See `Bus.subscribe`."""
        self._check_connected()
        subscription = MemorySubscription(self._server, checked(subject), queue, callback)
        self._subscriptions.append(subscription)
        return subscription

    async def last(self, stream: str, subject: str) -> Stored | None:
        """See `Bus.last`."""
        self._check_connected()
        return self._server.stream(stream).last(subject)

    async def read(
        self, stream: str, subject: str, *, since: float | None = None, sequence: int = 1
    ) -> AsyncIterator[Stored]:
        """See `Bus.read`."""
        self._check_connected()
        if stream not in self._server.streams:
            raise NoResponder("no stream of that name can be read")
        for stored in self._server.stream(stream).read(subject):
            if (stored.time >= since) if since is not None else (stored.sequence >= sequence):
                yield stored

    async def purge(self, stream: str, subject: str, *, below: int = 0) -> int:
        """See `Bus.purge`."""
        self._check_connected()
        return self._server.stream(stream).purge(subject, below)

    async def flush(self) -> None:
        """See `Bus.flush`."""
        self._check_connected()
        await asyncio.sleep(0)

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """See `Bus.on_reconnect`."""
        return register(self._reconnect_callbacks, callback)

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """See `Bus.on_disconnect`."""
        return register(self._disconnect_callbacks, callback)

    def _check_connected(self) -> None:
        if not self._connected:
            raise Disconnected("not connected")

    # --- the service's bus

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """See `ServiceBus.ensure_stream`."""
        self._check_connected()
        self._server.ensure_stream(spec)

    async def ensure_bucket(self, name: str, *, ttl: float = 0.0, replicas: int = 1) -> None:
        """See `ServiceBus.ensure_bucket`."""
        await self.ensure_stream(admin.bucket_spec(name, ttl=ttl, replicas=replicas))

    async def ensure_consumer(self, spec: ConsumerSpec) -> ConsumerState:
        """See `ServiceBus.ensure_consumer`."""
        self._check_connected()
        return self._server.stream(spec.stream).consumer(spec).state()

    async def consumer_state(self, stream: str, name: str) -> ConsumerState | None:
        """See `ServiceBus.consumer_state`."""
        self._check_connected()
        found = self._server.streams.get(stream)
        consumer = found.consumers.get(name) if found else None
        return consumer.state() if consumer else None

    async def delete_consumer(self, stream: str, name: str) -> bool:
        """See `ServiceBus.delete_consumer`."""
        state = await self.consumer_state(stream, name)
        if state and not state.ack_pending:
            self._server.delete_consumer(stream, name)
        return not state or not state.ack_pending

    def pull(
        self,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_unwanted: Callable[[Delivery], None] | None = None,
    ) -> MemoryPuller:
        """See `ServiceBus.pull`."""
        puller = MemoryPuller(
            lambda: self._server.stream(spec.stream).consumer(spec), on_delivery, on_unwanted or hand_back
        )
        self._pullers.append(puller)
        return puller

    def bucket(self, name: str) -> MemoryBucket:
        """See `ServiceBus.bucket`."""
        return MemoryBucket(self, self._server.watchers, name)

    async def replace(self, subject: str, data: bytes, *, expected: int, ttl: float = 0.0) -> int:
        """See `ServiceBus.replace`."""
        self._check_connected()
        return (await self.store(subject, data, headers=admin.replacement(expected, ttl))).sequence

    async def last_in_bucket(self, bucket: str, key: str) -> Stored | None:
        """See `ServiceBus.last_in_bucket`."""
        return await self.last(f"KV_{bucket}", f"$KV.{bucket}.{key}")

    async def serve(
        self,
        service: str,
        version: str,
        endpoints: Mapping[str, Endpoint],
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Callable[[], Awaitable[None]]:
        """See `ServiceBus.serve`."""
        server = MicroService(self, service, version, endpoints, metadata or {})
        await server.start()
        return server.stop

    async def account(self) -> dict[str, Any]:
        """See `ServiceBus.account`."""
        self._check_connected()
        return {"streams": len(self._server.streams)}


def _answer(future: "asyncio.Future[Message]", reply: Message) -> None:
    if not future.done():
        future.set_result(reply)
