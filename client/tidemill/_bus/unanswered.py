"""What was sent and must be answered: remembered until it is, sent again after a reconnect.

What may be sent twice is also sent again when no answer comes for long: a server that was killed may have
forgotten, for a moment, what the answer depends on.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from tidemill._bus import jetstream
from tidemill._bus.framing import status_of
from tidemill._bus.protocol import BusError, Disconnected, NoResponder, RequestTimeout, StreamFull

Frame = tuple[bytes, ...]

SWEEP = 1.0  # seconds between looks for what has waited too long
AGAIN_DELAY, AGAIN_TRIES = (0.1, 0.3), 25  # seconds, jittered; for what nobody took yet
MAX_WAITING = 64 << 20  # bytes kept while there is no connection
MAX_UNANSWERED = 512 << 20  # bytes sent and not answered


class _Entry:
    """One thing sent.

    `patience` is for how long an answer is waited for before it is sent again, doubling each time; 0 for
    what may not be sent twice. `repeat` is when that will be.
    """

    __slots__ = ("deadline", "frame", "future", "patience", "read", "repeat", "sent", "size", "tries")

    future: "asyncio.Future[Any]"
    frame: Frame
    size: int
    read: Callable[[bytes], Any]
    deadline: float
    patience: float
    repeat: float
    sent: bool
    tries: int


class Unanswered:
    """Futures by token, in the order in which they were sent. Answers arrive on `<inbox>.<token>`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, inbox: str, send: Callable[[Frame], None]) -> None:
        self._loop = loop
        self._skip = len(inbox) + 1
        self._send = send
        self._entries: dict[bytes, _Entry] = {}
        self._bytes = 0
        self._connected = False
        self._sweep: asyncio.TimerHandle | None = None

    def add(
        self,
        token: bytes,
        frame: Frame,
        size: int,
        read: Callable[[bytes], Any],
        timeout: float,
        patience: float,
    ) -> "asyncio.Future[Any]":
        """Send a frame, now or after the reconnect; the future holds what `read` makes of the answer."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._bytes + size > (MAX_UNANSWERED if self._connected else MAX_WAITING):
            future.set_exception(self._overflow())
            return future
        entry = _Entry()
        entry.future, entry.frame, entry.size, entry.read = future, frame, size, read
        now = self._loop.time()
        entry.deadline, entry.patience, entry.repeat = now + timeout, patience, now + patience
        entry.sent, entry.tries = self._connected, 0
        self._entries[token] = entry
        self._bytes += size
        if self._connected:
            self._send(frame)
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP, self._look)
        return future

    def answered(self, subject: bytes, _reply: bytes, block: bytes, data: bytes) -> None:
        """Take an answer."""
        token = subject[self._skip :]
        entry = self._entries.get(token)
        if entry is None:  # given up, or answered before
            return
        try:
            if block and status_of(block) == 503:
                raise NoResponder("no stream or consumer takes this")
            result = entry.read(data)
        except BusError as error:
            if not self._postponed(token, entry, error):
                self._end(token, entry, error)
            return
        del self._entries[token]
        self._bytes -= entry.size
        if not entry.future.done():
            entry.future.set_result(result)

    def pause(self) -> None:
        """The connection is gone: fail what may not be sent twice."""
        self._connected = False
        for token, entry in list(self._entries.items()):
            if entry.sent and not entry.patience:
                self._end(token, entry, Disconnected("the connection was lost before an answer came"))

    def resume(self, *, first: Callable[[], None]) -> None:
        """The connection is there: send what `first` adds, then everything that waits, in order."""
        waiting = list(self._entries.items())
        self._connected = True
        first()
        for token, entry in waiting:
            if entry.future.cancelled():
                self._forget(token, entry)
            else:
                entry.sent = True
                self._send(entry.frame)

    def fail_all(self, error: BusError) -> None:
        """Forget everything."""
        for token, entry in list(self._entries.items()):
            self._end(token, entry, error)
        if self._sweep is not None:
            self._sweep.cancel()

    def _postponed(self, token: bytes, entry: _Entry, error: BusError) -> bool:
        """Send again a little later what the server could not take for a moment (it has not kept it)."""
        entry.tries += 1
        busy = isinstance(error, NoResponder | jetstream.Busy)
        if not busy or entry.tries > AGAIN_TRIES or entry.future.cancelled():
            return False
        delay = random.uniform(*AGAIN_DELAY)  # noqa: S311
        self._loop.call_later(delay, self._again, token, entry)
        return True

    def _again(self, token: bytes, entry: _Entry) -> None:
        if self._connected and self._entries.get(token) is entry:
            self._send(entry.frame)

    def _look(self) -> None:
        """Give up what has waited too long, and send again what may have been forgotten."""
        now = self._loop.time()
        for token, entry in list(self._entries.items()):
            if entry.deadline <= now or entry.future.cancelled():
                self._end(token, entry, RequestTimeout("the server did not answer"))
            elif entry.patience and entry.repeat <= now:
                entry.patience *= 2
                entry.repeat = now + entry.patience
                self._again(token, entry)
        self._sweep = self._loop.call_later(SWEEP, self._look) if self._entries else None

    def _end(self, token: bytes, entry: _Entry, error: BusError) -> None:
        self._forget(token, entry)
        if not entry.future.done():
            entry.future.set_exception(error)

    def _forget(self, token: bytes, entry: _Entry) -> None:
        del self._entries[token]
        self._bytes -= entry.size

    def _overflow(self) -> BusError:
        if self._connected:
            return StreamFull("too much is unanswered")
        return Disconnected("not connected to NATS, and too much waits already")
