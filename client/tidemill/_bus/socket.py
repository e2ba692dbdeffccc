"""The bus inside a container: every operation is a frame to the worker, which has the real connection.

    ASK      number, operation, arguments        container -> worker
    ANSWER   number, True, value                 worker -> container
    ANSWER   number, False, [error, ...]         worker -> container
    DELIVER  subscription, subject, data, reply, headers
    RECONNECTED                                  the worker's connection broke and is back, or lost messages

| operation     | arguments                               | value of the answer                       |
|---------------|-----------------------------------------|-------------------------------------------|
| `publish`     | subject, data, reply, headers           | none, and no answer: the number is 0      |
| `store`       | subject, data, message id, headers      | stream, sequence, duplicate               |
| `request`     | subject, data, timeout, headers         | data                                      |
| `subscribe`   | subscription, subject, queue            | nil, once the server knows it (flushed)   |
| `unsubscribe` | subscription                            | none, and no answer: the number is 0      |
| `last`        | stream, subject                         | a stored message, or nil                  |
| `read`        | stream, subject, since or nil, sequence | [stored messages], where to go on or nil  |
| `purge`       | stream, subject, below                  | how many there were                       |
| `flush`       |                                         | nil                                       |

`headers` is a map of strings, or nil. A stored message is `[subject, data, sequence, time, headers]`. The
container chooses the numbers of subscriptions. `read` answers with one batch (the worker chooses its size,
at most `READ_BYTES`) and with the sequence to ask for next, or nil when it got to the end of what was
there. An error is the name of a class of `tidemill._bus.protocol` and its arguments: `["StreamFull",
message]`, `["Refused", code, description]`, `["RequestFailed", code, message, hint]`.

The worker checks every operation: the container is not trusted. Operations of one container are carried
out in the order in which they come, but answered when each is done.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from tidemill._bus import protocol
from tidemill._bus.protocol import BusError, Closed, Message, PubAck, RequestTimeout, Stored
from tidemill._container.frames import ToRunner

READ_BYTES = 4 << 20  # of stored messages in one answer to `read`

_GRACE = 5.0  # seconds beyond a request's own timeout in which the worker has to answer
_PATIENCE = 60.0  # seconds for answers that have no timeout of their own: the worker sends again after 30

Frame = list[Any]


class Link(Protocol):
    """The way to the worker: `tidemill._container.link.Link`."""

    def number(self) -> int:
        """Return a number that was not used before."""

    def ask(self, number: int, operation: str, *arguments: object) -> None:
        """Send an ASK."""

    def take(self) -> list[Frame]:
        """Return the frames that have arrived since."""


class SocketSubscription:
    """A live subscription."""

    def __init__(self, bus: "SocketBus", number: int) -> None:
        self._bus = bus
        self._number = number

    async def close(self) -> None:
        """End it. Nothing is delivered afterwards."""
        self._bus.unsubscribe(self._number)

    async def drain(self) -> None:
        """End it after everything that is on its way already was delivered."""
        await self._bus.flush()
        await self.close()


class SocketBus:
    """`tidemill._bus.protocol.Bus` over a container's worker, on the event loop that makes it."""

    def __init__(self, link: Link, max_payload: int) -> None:
        self.max_payload = max_payload
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._callbacks: dict[int, Callable[[Message], None]] = {}
        self._on_reconnect: list[Callable[[], None]] = []
        self._on_disconnect: list[Callable[[], None]] = []
        self._closed = False

    def is_closed(self) -> bool:
        """Return whether it was closed, or its loop was."""
        return self._closed or self._loop.is_closed()

    # --- the protocol

    def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send and forget."""
        self._check()
        self._link.ask(0, "publish", subject, data, reply, _plain(headers))

    def store(
        self, subject: str, data: bytes, *, msg_id: str = "", headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[PubAck]:
        """Publish into a stream; the future holds the server's word."""
        stored: asyncio.Future[PubAck] = self._loop.create_future()
        if len(data) > self.max_payload:
            stored.set_exception(protocol.TooLarge(f"{len(data):,} bytes, the limit is {self.max_payload:,}"))
            return stored
        answered = self._ask("store", subject, data, msg_id, _plain(headers))
        answered.add_done_callback(lambda answer: _pass_on(answer, stored))
        return stored

    async def request(
        self, subject: str, data: bytes, *, timeout: float = 5.0, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Ask and return the answer."""
        answer = self._ask("request", subject, data, timeout, _plain(headers))
        result: bytes = await self._wait(answer, timeout + _GRACE)
        return result

    async def subscribe(
        self, subject: str, callback: Callable[[Message], None], *, queue: str = ""
    ) -> SocketSubscription:
        """Call `callback` for every message on `subject`."""
        number = self._link.number()
        self._callbacks[number] = callback
        try:
            await self._wait(self._ask("subscribe", number, subject, queue))
        except BaseException:
            self.unsubscribe(number)
            raise
        return SocketSubscription(self, number)

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the last message of a stream on a subject."""
        found = await self._wait(self._ask("last", stream, subject))
        return None if found is None else Stored(*found)

    async def read(
        self, stream: str, subject: str, *, since: float | None = None, sequence: int = 1
    ) -> AsyncIterator[Stored]:
        """Yield what a stream holds on `subject`, batch by batch."""
        following: int | None = sequence
        while following is not None:
            stored, following = await self._wait(self._ask("read", stream, subject, since, following))
            since = None
            for message in stored:
                yield Stored(*message)

    async def purge(self, stream: str, subject: str, *, below: int = 0) -> int:
        """Remove a stream's messages on `subject`."""
        count: int = await self._wait(self._ask("purge", stream, subject, below))
        return count

    async def flush(self) -> None:
        """Return when the server has processed everything sent so far."""
        await self._wait(self._ask("flush"))

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each reconnect of the worker and after lost messages."""
        return _add(self._on_reconnect, callback)

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` at each loss. A container hears of one when it is over, just before the return."""
        return _add(self._on_disconnect, callback)

    async def close(self) -> None:
        """End: what still waits fails with `Closed`, subscriptions end."""
        if self._closed:
            return
        for number in list(self._callbacks):
            self.unsubscribe(number)
        self._closed = True
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            if not answer.done():
                answer.set_exception(Closed("the bus was closed"))

    # --- asking

    def unsubscribe(self, number: int) -> None:
        """End a subscription."""
        if self._callbacks.pop(number, None) is not None and not self._closed:
            self._link.ask(0, "unsubscribe", number)

    def _ask(self, operation: str, *arguments: object) -> "asyncio.Future[Any]":
        self._check()
        number = self._link.number()
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked[number] = answer
        answer.add_done_callback(lambda _answer: self._asked.pop(number, None))
        self._link.ask(number, operation, *arguments)
        return answer

    async def _wait(self, answer: "asyncio.Future[Any]", patience: float = _PATIENCE) -> Any:
        try:
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError:
            raise RequestTimeout("the worker has not answered") from None

    def _check(self) -> None:
        if self._closed:
            raise Closed("the bus was closed")

    # --- what arrives

    def wake(self) -> None:
        """Have the loop look at what has arrived. Called by the thread that reads the worker's frames."""
        with suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._on_arrival)

    def _on_arrival(self) -> None:
        for frame in self._link.take():
            kind = frame[0]
            if kind == ToRunner.ANSWER:
                self._on_answer(*frame[1:4])
            elif kind == ToRunner.DELIVER:
                self._on_message(frame)
            else:
                for callback in (*self._on_disconnect, *self._on_reconnect):
                    self._call(callback)

    def _on_answer(self, number: int, ok: bool, value: Any) -> None:
        answer = self._asked.get(number)
        if answer is None or answer.done():
            return  # nobody waits for it any more
        if ok:
            answer.set_result(value)
        else:
            answer.set_exception(to_error(value))

    def _on_message(self, frame: Frame) -> None:
        _, number, subject, data, reply, headers = frame
        callback = self._callbacks.get(number)
        if callback is not None:
            self._call(callback, Message(subject, data, reply, headers or {}))

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call back; one that fails must not keep the others from their messages."""
        try:
            callback(*arguments)
        except Exception as error:
            self._loop.call_exception_handler({"message": "a callback of the bus failed", "exception": error})


def to_error(value: list[Any]) -> BusError:
    """Return the error of an ANSWER."""
    name, *arguments = value
    kind = getattr(protocol, name, None)
    if isinstance(kind, type) and issubclass(kind, BusError):
        return kind(*arguments)
    return BusError(f"{name}: {arguments}")


def from_error(error: BusError) -> list[Any]:
    """Return what an ANSWER says of an error. For the worker."""
    if isinstance(error, protocol.Refused):
        return ["Refused", error.code, error.description]
    if isinstance(error, protocol.RequestFailed):
        return ["RequestFailed", error.code, error.message, error.hint]
    if isinstance(error, protocol.Closed | protocol.NotLetIn):  # the worker's own end, not the container's
        return ["Disconnected", str(error)]
    return [type(error).__name__, str(error)]


def _plain(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    return dict(headers) if headers else None


def _pass_on(answer: "asyncio.Future[Any]", stored: "asyncio.Future[PubAck]") -> None:
    if stored.done():
        return
    if answer.cancelled():
        stored.cancel()
    elif (error := answer.exception()) is not None:
        stored.set_exception(error)
    else:
        stored.set_result(PubAck(*answer.result()))


def _add(callbacks: list[Callable[[], None]], callback: Callable[[], None]) -> Callable[[], None]:
    callbacks.append(callback)

    def undo() -> None:
        with suppress(ValueError):
            callbacks.remove(callback)

    return undo
