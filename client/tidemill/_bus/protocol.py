"""The bus as a caller sees it: publish, store, request, subscribe, read.

Three implementations: `tidemill._bus.nats` (nats-py), `tidemill._bus.socket` (inside a container, over
its worker) and `tidemill_common.bus.memory` (tests). The first and the last pass the same contract
tests; what services need beyond it is `tidemill_common.bus.protocol.ServiceBus`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """Something that arrived on a subscription."""

    subject: str
    data: bytes
    reply: str
    headers: Mapping[str, str]


class Stored(NamedTuple):
    """A message as a stream keeps it. `time` is the server's unix time."""

    subject: str
    data: bytes
    sequence: int
    time: float
    headers: Mapping[str, str]


class PubAck(NamedTuple):
    """A stream's word that it has a message; `duplicate` when it had it before."""

    stream: str
    sequence: int
    duplicate: bool


class BusError(Exception):
    """Base of what a bus raises."""


class Disconnected(BusError):
    """The connection is gone, or was never made; what was under way may or may not have happened."""


class Closed(Disconnected):
    """This side has closed the bus: there will be no connection any more."""


class NotLetIn(Disconnected):
    """The server refused these credentials.

    It asks the registry about them: a refusal that is not `final` came because nobody answered it.
    """

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


class NoResponder(BusError):
    """Nobody serves the requested subject."""


class RequestTimeout(BusError):
    """No answer came in time."""


class AlreadyHeld(BusError):
    """The stream holds a message on this subject already: the publish was accepted before."""


class StreamFull(BusError):
    """The stream takes no more for now: back-pressure."""


class WrongSequence(BusError):
    """The subject's last sequence is not the expected one: somebody else wrote it."""


class Refused(BusError):
    """The server refused for another reason: `code` is JetStream's error code."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.description = description


class TooLarge(BusError):
    """The message is above the server's `max_payload`."""


class RequestFailed(BusError):
    """The service answered with an error (`tidemill._wire.control.ErrorReply`)."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class Subscription(Protocol):
    """A live subscription."""

    async def close(self) -> None:
        """End it. Nothing is delivered afterwards."""

    async def drain(self) -> None:
        """End it after everything that is on its way already was delivered."""


class Bus(Protocol):
    """A connection to the bus. Callbacks are plain functions called on the loop; they must not block."""

    max_payload: int

    def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send and forget (core NATS): at most once. `Disconnected` without a connection."""

    def store(
        self, subject: str, data: bytes, *, msg_id: str = "", headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[PubAck]:
        """Publish into a stream; the future holds the server's word.

        A publish that was unanswered when the connection broke is sent again under the same `msg_id`
        after the reconnect (without an id it fails with `Disconnected`). Otherwise the future fails with
        `AlreadyHeld`, `StreamFull`, `WrongSequence`, `TooLarge`, `Refused` or, after 30 s without any
        word, `RequestTimeout`.
        """

    async def request(
        self, subject: str, data: bytes, *, timeout: float = 5.0, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Ask and return the answer; `RequestFailed`, `NoResponder`, `RequestTimeout` or `Disconnected`."""

    async def subscribe(
        self, subject: str, callback: Callable[[Message], None], *, queue: str = ""
    ) -> Subscription:
        """Call `callback` for every message on `subject`, at once and in order; flushed when it returns."""

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the last message of a stream on a subject, read from the stream's leader."""

    def read(
        self, stream: str, subject: str, *, since: float | None = None, sequence: int = 1
    ) -> AsyncIterator[Stored]:
        """Yield what a stream holds on `subject` (wildcards allowed), oldest first, by batched direct get.

        Begins at the server's unix time `since` when given, else at `sequence`; ends with what was there
        when the reader got to the end. Makes no consumer.
        """

    async def purge(self, stream: str, subject: str, *, below: int = 0) -> int:
        """Remove a stream's messages on `subject` (wildcards allowed); return how many there were.

        With `below` only those of a lower sequence go (JetStream's `seq`).
        """

    async def flush(self) -> None:
        """Return when the server has processed everything sent so far; `Disconnected` if it cannot."""

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each reconnect and after lost messages (slow consumer); return its undo."""

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` at each loss of the connection; return its undo."""

    async def close(self) -> None:
        """Send what is buffered and end the connection."""
