"""Output as it is printed, over HTTP: a line of JSON each, or a server-sent event.

What a client does not read yet stays in the stream on NATS: nothing is kept here but the line that is being
sent. A stream ends when its app is stopped or its container has ended, when the client has gone or takes
nothing for a minute, and when this process is to stop; an event's id says where another request goes on.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import Response
from starlette.types import Message, Receive, Scope, Send

from tidemill import exception
from tidemill._caller import Caller
from tidemill._log_endings import Ending, until_over
from tidemill._log_entries import LogEntry
from tidemill._log_reading import LogReader
from tidemill_gateway.problems import Problem

FOLLOWED_AT_ONCE = 256  # by the clients of one gateway
SIGN_OF_LIFE = 15.0  # seconds without a line after which an empty one is sent
PATIENCE = 60.0  # seconds that a client may take for what it was sent
NDJSON, EVENTS = "application/x-ndjson", "text/event-stream"


@dataclass(frozen=True, slots=True)
class Following:
    """What is followed: from the last `tail` lines on, or behind the message `after`."""

    caller: Caller
    reader: LogReader
    ending: Ending
    tail: int = 0
    after: int | None = None

    async def begin(self) -> int:
        """Return the message behind which lines are followed: what is printed from now on is among them."""
        return await self.reader.last() if self.after is None else self.after

    async def lines(self, after: int) -> AsyncGenerator[LogEntry, None]:
        """Yield lines until the end, having begun."""
        reader = self.reader
        if self.tail and self.after is None:
            for entry in await reader.tail(self.tail, after):
                yield entry
        reader.position = after
        ending = until_over(self.caller, self.ending)
        async with ending as is_over, aclosing(reader.follow(after, is_over)) as entries:
            async for entry in entries:
                yield entry


class Followers:
    """The streams that are open."""

    def __init__(self) -> None:
        self._open = 0

    def response(
        self,
        following: Following,
        stopping: asyncio.Event,
        *,
        events: bool,
        shown: Callable[[LogEntry], Any],
    ) -> "Stream":
        """Return the answer that streams. Raises `Problem` when there are too many."""
        if self._open >= FOLLOWED_AT_ONCE:
            raise Problem(429, "resource_exhausted", "too many streams of output are open", hint="close some")
        return Stream(self._counted, following, stopping, events=events, shown=shown)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class Stream(Response):
    """An answer that goes on."""

    def __init__(
        self,
        counted: Callable[[], Any],
        following: Following,
        stopping: asyncio.Event,
        *,
        events: bool,
        shown: Callable[[LogEntry], Any],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(
            {
                "content-type": EVENTS if events else NDJSON,
                "cache-control": "no-store",
                "x-accel-buffering": "no",  # a proxy is not to keep lines back
            }
        )
        self._counted = counted
        self._following = following
        self._stopping = stopping
        self._events = events
        self._shown = shown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send lines until there are no more, or nobody takes them."""
        stream = asyncio.ensure_future(self._stream(send))
        gone, stopping = asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(self._stopping.wait())
        with self._counted():
            try:
                await asyncio.wait({stream, gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (stream, gone, stopping):
                    task.cancel()
                await asyncio.gather(stream, gone, stopping, return_exceptions=True)
        if not stream.cancelled():
            stream.result()
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                await _sent(send, {"type": "http.response.body", "body": piece, "more_body": True})

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield what is sent: first an empty line, so that the client knows that it is heard."""
        try:
            entries = self._following.lines(await self._following.begin())
        except exception.Error as error:
            yield self._ended(error)
            return
        following: asyncio.Future[LogEntry] | None = None
        yield self._nothing
        try:
            while True:
                following = following or asyncio.ensure_future(anext(entries))
                await asyncio.wait({following}, timeout=SIGN_OF_LIFE)
                if not following.done():
                    yield self._nothing
                    continue
                try:
                    entry, following = following.result(), None
                except StopAsyncIteration:
                    return
                except exception.Error as error:
                    yield self._ended(error)
                    return
                yield self._line(entry)
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            await entries.aclose()

    @property
    def _nothing(self) -> bytes:
        return b":\n\n" if self._events else b"\n"

    def _line(self, entry: LogEntry) -> bytes:
        data = msgspec.json.encode(self._shown(entry))
        if not self._events:
            return data + b"\n"
        position = self._following.reader.position
        return (b"id: %d\n" % position if position is not None else b"") + b"data: %b\n\n" % data

    def _ended(self, error: exception.Error) -> bytes:
        data = msgspec.json.encode({"error": str(error), "hint": error.hint})
        return b"event: error\ndata: %b\n\n" % data if self._events else data + b"\n"


async def _sent(send: Send, message: Message) -> None:
    """Send, unless the client takes nothing: then the connection ends."""
    try:
        async with asyncio.timeout(PATIENCE):
            await send(message)
    except TimeoutError as error:
        raise exception.ConnectionError("the client takes nothing of what it asked for") from error


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
