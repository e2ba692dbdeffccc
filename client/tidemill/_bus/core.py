"""A connection to NATS, and what the server does without its streams: publish, ask, listen.

What must be answered is remembered until it is (`_bus.unanswered`). When the connection breaks, what can
be repeated without harm is sent again, in order, as soon as it is back; the rest fails at once.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from nats import errors
from nats.nuid import NUID

from tidemill._bus.connection import SLOW_REFUSAL, Connection, is_refusal
from tidemill._bus.framing import (
    NO_HEADERS,
    LazyHeaders,
    checked,
    header_block,
    parse_headers,
    publication,
    status_of,
)
from tidemill._bus.protocol import (
    BusError,
    Closed,
    Disconnected,
    Message,
    NoResponder,
    NotLetIn,
    RequestFailed,
    RequestTimeout,
    StreamFull,
    TooLarge,
)
from tidemill._bus.unanswered import Unanswered
from tidemill._wire import coding, subjects
from tidemill._wire.control import ErrorReply

MAX_LEAVING = 256 << 20  # bytes that the socket has not taken: then publishing is refused
FLUSH_TIMEOUT = 10.0  # seconds
CLOSE_TIMEOUT = 2.0  # seconds
LET_IN = 10.0  # seconds for which a server that nobody answers is asked again to let us in


class CoreBus:
    """Core NATS; `NatsBus` adds JetStream."""

    def __init__(self, user: str = "") -> None:
        self.max_payload = 1 << 20
        self._loop = asyncio.get_running_loop()
        self._inbox = f"{subjects.inbox(user)}.{NUID().next().decode()}"
        self._connection = Connection(self._down, self._up, self._shut_out)
        self._unanswered = Unanswered(self._loop, f"{self._inbox}.u", self._send)
        self._connected = False
        self._closing = False
        self._why_not = Disconnected("not connected to NATS")
        self._tokens = itertools.count()
        self._out: list[bytes] = []
        self._congested = False
        self._before_write: list[Callable[[], None]] = []
        self._write_scheduled = False
        self._waiting: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}  # requests, by token
        self._others: set[asyncio.Future[Any]] = set()  # flushes and batches: fail with the connection
        self._reconnect_callbacks: dict[object, Callable[[], None]] = {}
        self._disconnect_callbacks: dict[object, Callable[[], None]] = {}
        self.on_shut_out: Callable[[], None] = _nothing

    async def open(self, url: str, user: str, password: str, *, name: str, timeout: float) -> None:
        """Make the connection; see `connect`. A server that has nobody to ask about us is asked again."""
        deadline = self._loop.time() + LET_IN
        while True:
            try:
                await self._open(url, user, password, name=name, timeout=timeout)
                return
            except NotLetIn as error:
                if error.final or self._loop.time() > deadline:
                    raise
            self._connection = Connection(self._down, self._up, self._shut_out)

    async def _open(self, url: str, user: str, password: str, *, name: str, timeout: float) -> None:
        began = self._loop.time()
        try:
            async with asyncio.timeout(timeout):
                await self._connection.open(
                    url, user, password, name=name, inbox=self._inbox, timeout=timeout
                )
                self._connection.listen(f"{self._inbox}.u.*", "", self._unanswered.answered)
                self._connection.listen(f"{self._inbox}.r.*", "", self._responded)
                await self._connection.ping()
        except BaseException as error:
            self._connection.cut()
            if isinstance(error, TimeoutError):
                raise Disconnected(f"no answer from {url} within {timeout:g} s") from error
            if is_refusal(error):
                final = self._loop.time() - began < SLOW_REFUSAL
                raise NotLetIn(f"{url} does not let us in: {error}", final=final) from error
            if isinstance(error, OSError | errors.Error):
                raise Disconnected(f"cannot connect to {url}: {error}") from error
            raise
        self._connected = True
        self.max_payload = self._connection.max_payload
        self._unanswered.resume(first=self._renew)

    async def close(self) -> None:
        """See `Bus.close`."""
        if self._closing:
            return
        self._closing = True
        self._why_not = Closed("the connection was closed")
        with suppress(BusError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.flush()
        self._down()
        self._unanswered.fail_all(self._why_not)
        await self._connection.close()

    # --- sending

    def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """See `Bus.publish`."""
        if not self._connected:
            raise self._why_not
        block = header_block(headers) if headers else ""
        if error := self._unsendable(len(data) + len(block)):
            raise error
        self._send(publication(checked(subject), checked(reply) if reply else "", block, data))

    def _tell(
        self,
        subject: str,
        data: bytes,
        block: str,
        read: Callable[[bytes], Any],
        timeout: float,
        patience: float,
        *,
        before: tuple[bytes, ...] = (),
    ) -> "asyncio.Future[Any]":
        """Send what must be answered; the future holds what `read` makes of the answer.

        With some `patience` (seconds) it is sent again after a reconnect, or when no answer comes; `before`
        are publications that go along each time, and have the same answer.
        """
        size = len(data) + len(block)
        error = self._why_not if self._closing else self._unsendable(size)
        if error:
            return _failed(self._loop, error)
        token = str(next(self._tokens))
        frame = before + publication(subject, f"{self._inbox}.u.{token}", block, data)
        return self._unanswered.add(token.encode(), frame, size, read, timeout, patience)

    def _unsendable(self, size: int) -> BusError | None:
        """Return why a message of this size cannot be sent now."""
        if size > self.max_payload:
            return TooLarge(f"a message of {size} bytes: the server takes {self.max_payload}")
        if self._congested:
            self._congested = self._connected and self._connection.waiting_to_leave() > MAX_LEAVING
            if self._congested:
                return StreamFull("the server takes too little of what is sent")
        return None

    def _send(self, frame: tuple[bytes, ...]) -> None:
        self._out += frame
        if not self._write_scheduled:
            self._write_scheduled = True
            self._loop.call_soon(self._write)

    def _soon(self, call: Callable[[], None]) -> None:
        """Run `call` once before the next write: what it publishes goes along."""
        self._before_write.append(call)
        if not self._write_scheduled:
            self._write_scheduled = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        """Write what was published in this turn of the loop."""
        if self._before_write:
            calls, self._before_write = self._before_write, []
            for call in calls:
                try:
                    call()
                except Exception as error:
                    self._loop.call_exception_handler({"message": "before a write", "exception": error})
        self._write_scheduled = False
        if self._out:
            if self._connected:
                self._connection.write(self._out)
                self._congested = self._connection.waiting_to_leave() > MAX_LEAVING
            self._out = []

    # --- asking

    async def request(
        self, subject: str, data: bytes, *, timeout: float = 5.0, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """See `Bus.request`."""
        token = str(next(self._tokens))
        answer: asyncio.Future[tuple[bytes, bytes]] = self._loop.create_future()
        self.publish(subject, data, reply=f"{self._inbox}.r.{token}", headers=headers)
        self._waiting[token.encode()] = answer
        late = self._loop.call_later(timeout, _fail, answer, RequestTimeout(f"no answer from {subject}"))
        try:
            block, body = await answer
        finally:
            late.cancel()
            self._waiting.pop(token.encode(), None)
        if status_of(block) == 503 and not body:
            raise NoResponder(f"nobody answers requests on {subject}")
        if block and (refusal := service_refusal(parse_headers(block), body)):
            raise refusal
        return body

    def _responded(self, subject: bytes, _reply: bytes, block: bytes, data: bytes) -> None:
        answer = self._waiting.pop(subject[len(self._inbox) + 3 :], None)
        if answer is not None and not answer.done():
            answer.set_result((block, data))

    async def flush(self) -> None:
        """See `Bus.flush`."""
        if not self._connected:
            raise self._why_not
        self._write()
        answered = self._connection.ping()
        late = self._loop.call_later(FLUSH_TIMEOUT, _fail, answered, Disconnected("no answer to a ping"))
        self._others.add(answered)
        try:
            await answered
        finally:
            late.cancel()
            self._others.discard(answered)

    # --- listening

    async def subscribe(
        self, subject: str, callback: Callable[[Message], None], *, queue: str = ""
    ) -> "NatsSubscription":
        """See `Bus.subscribe`."""

        def deliver(subject: bytes, reply: bytes, block: bytes, data: bytes) -> None:
            headers = LazyHeaders(block) if block else NO_HEADERS
            callback(Message(subject.decode(), data, reply.decode(), headers))

        if not self._connected:
            raise self._why_not
        sid = self._connection.listen(checked(subject), checked(queue) if queue else "", deliver)
        try:
            await self.flush()
        except BaseException:
            self._connection.unlisten(sid)
            raise
        return NatsSubscription(self, self._connection, sid)

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """See `Bus.on_reconnect`. Nothing is ever dropped on this side, so only reconnects call it."""
        return register(self._reconnect_callbacks, callback)

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """See `Bus.on_disconnect`."""
        return register(self._disconnect_callbacks, callback)

    # --- the connection's life

    def _down(self) -> None:
        """The connection is gone: fail what cannot be repeated, keep the rest."""
        if not self._connected:
            return
        self._connected = False
        self._out = []
        self._unanswered.pause()
        for future in (*self._waiting.values(), *self._others):
            _fail(future, Disconnected("the connection to NATS was lost"))
        if not self._closing:
            for callback in list(self._disconnect_callbacks.values()):
                callback()

    def _up(self) -> None:
        """The connection is back: send what was not answered, then let everybody know."""
        self._connected = True
        self._congested = False
        self.max_payload = self._connection.max_payload
        self._unanswered.resume(first=self._renew)
        for callback in list(self._reconnect_callbacks.values()):
            callback()

    def _shut_out(self) -> None:
        """There will be no connection any more: the token was revoked or has expired."""
        self._closing = True
        self._why_not = NotLetIn("the server does not let us in any more", final=True)
        self._unanswered.fail_all(self._why_not)
        self.on_shut_out()

    def _renew(self) -> None:
        """Do what cannot wait after a reconnect. Services renew their leases here."""


class NatsSubscription:
    """A live subscription."""

    def __init__(self, bus: CoreBus, connection: Connection, sid: int) -> None:
        self._bus = bus
        self._connection = connection
        self._sid = sid

    async def close(self) -> None:
        """See `Subscription.close`."""
        self._connection.unlisten(self._sid)

    async def drain(self) -> None:
        """End it after everything that the server has sent already was delivered."""
        self._bus._write()  # what was published before comes before the end
        self._connection.mute(self._sid)
        with suppress(BusError):  # without a connection nothing more comes
            await self._bus.flush()
        self._connection.unlisten(self._sid)


def service_refusal(headers: Mapping[str, str], body: bytes) -> RequestFailed | None:
    """Return the error that a service's answer stands for, if it is one."""
    if (code := headers.get("Nats-Service-Error-Code")) is None:
        return None
    try:
        reply = coding.decode(ErrorReply, body)
    except ValueError:  # a service of somebody else
        reply = ErrorReply(code, headers.get("Nats-Service-Error", ""))
    return RequestFailed(reply.code, reply.message, reply.hint)


def _nothing() -> None:
    pass


def register(callbacks: dict[object, Callable[[], None]], callback: Callable[[], None]) -> Callable[[], None]:
    """Add a callback; return what takes it away again."""
    key = object()
    callbacks[key] = callback
    return lambda: callbacks.pop(key, None) and None


def _fail(future: "asyncio.Future[Any]", error: BusError) -> None:
    if not future.done():
        future.set_exception(error)


def _failed(loop: asyncio.AbstractEventLoop, error: BusError) -> "asyncio.Future[Any]":
    future = loop.create_future()
    future.set_exception(error)
    return future
