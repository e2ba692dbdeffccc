"""One request over HTTP: to a container, and its response back.

A request that is answered soon costs one task, one message there and one back. After a moment somebody also
watches whether its client is still there; a body that does not come at once has a stream of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.types import Receive, Scope, Send

from tidemill import exception
from tidemill._bus.protocol import BusError
from tidemill._duplex import HalfEnded
from tidemill._wire import phases as phases_of_start
from tidemill._wire.duplex import PIECE
from tidemill._wire.web import Headers, Request, Route, Timing
from tidemill_gateway.problems import Problem
from tidemill_gateway.web import feeds
from tidemill_gateway.web.calls import Answer, WebCall
from tidemill_gateway.web.events import MAX_EVENT, Event, Splitter
from tidemill_gateway.web.feeds import Feeds
from tidemill_gateway.web.protocol import end_with_trailers, respond

WATCH_AFTER = 0.1  # seconds without a response until somebody looks whether the client is still there
BODY_TIMEOUT = 60.0  # seconds for a body that is sent on with its head, or the first piece of another
GATHERED = 64 * 1024  # bytes of a body of known length that go along with the head

# What a request says about who sent it is the gateway's to say.
_OURS = frozenset(
    b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-prefix x-real-ip forwarded".split()
)
# What a response says about its connection is the gateway's to say, too.
_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"date"))


class _Gone(Exception):
    """The client has left."""


async def serve(
    call: WebCall,
    route: Route,
    root_path: str,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    feeds: Feeds,
    token: str = "",
) -> None:
    """Answer one request. Raises `Problem`, `Error` as long as nothing was answered.

    `token` is the id of the proxy token that it came with.
    """
    exchange = _Exchange(call, route, scope, receive, send, feeds, token)
    try:
        await exchange.ask(root_path)
        await exchange.answer()
    except _Gone:
        call.cancel()
    except asyncio.CancelledError:
        if not exchange.is_kept:
            call.cancel()
        raise
    finally:
        exchange.close()


async def resume(found: feeds.Found, kept: Feeds, receive: Receive, send: Send) -> None:
    """Answer with what comes behind a place of a feed, for as long as the client is there."""
    await send({"type": "http.response.start", "status": found.status, "headers": found.headers})
    following = asyncio.create_task(kept.send(found.place, send))
    leaving = asyncio.create_task(_leave(receive))
    try:
        await asyncio.wait((following, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        following.cancel()
        leaving.cancel()


async def _leave(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def fields(scope: Scope, root_path: str, body: bytes, *, more: bool) -> Request:
    """Return what is sent of a request."""
    headers = forwarded(scope, root_path)
    path, raw_path = scope["path"], scope["raw_path"]
    if path == root_path:  # the address of the function itself
        path, raw_path = path + "/", raw_path + b"/"
    return Request(
        scope["type"],
        scope.get("method", "GET"),
        scope["scheme"],
        scope["http_version"],
        path,
        raw_path,
        scope["query_string"],
        root_path,
        headers,
        scope["client"],
        scope["server"],
        body,
        more,
        tuple(scope.get("subprotocols", ())),
    )


def forwarded(scope: Scope, root_path: str) -> Headers:
    """Return the headers of a request, with who sent it where."""
    headers, host = [], b""
    for header in scope["headers"]:
        if header[0] not in _OURS:
            headers.append(header)
            if header[0] == b"host":
                host = header[1]
    if client := scope["client"]:
        headers.append((b"x-forwarded-for", client[0].encode()))
    headers.append((b"x-forwarded-proto", scope["scheme"].encode()))
    headers.append((b"x-forwarded-host", host))
    if root_path:
        headers.append((b"x-forwarded-prefix", root_path.encode()))
    return headers


def answered(headers: Headers) -> Headers:
    """Return the headers of a response without what is the gateway's to say."""
    return [header for header in headers if header[0].lower() not in _HOP]


class _Exchange:
    """A request and its response."""

    __slots__ = (
        "_call", "_feeds", "_following", "_limit", "_more", "_receive", "_route", "_scope", "_send", "_timer",
        "_token", "_wants", "_watch",
    )  # fmt: skip

    def __init__(
        self,
        call: WebCall,
        route: Route,
        scope: Scope,
        receive: Receive,
        send: Send,
        feeds: Feeds,
        token: str,
    ) -> None:
        self._call = call
        self._route = route
        self._feeds = feeds
        self._token = token
        self._following: asyncio.Task[None] | None = None  # of a response that others keep
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limit = route.startup_timeout + route.timeout
        self._more = False  # of the body is to come
        self._wants = False  # the client waits to be asked for the body
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the call is somebody else's by now, who keeps what it brings."""
        return self._following is not None

    async def ask(self, root_path: str) -> None:
        """Send the request on its way."""
        body = await self._first_piece(self._scope["headers"])
        request = fields(self._scope, root_path, body, more=self._more)
        call = self._call
        if self._more:
            loop = asyncio.get_running_loop()
            call.opened, call.wanted = loop.create_future(), loop.create_future()
            call.start(request)
            self._begin_watch()
        else:
            call.start(request)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(WATCH_AFTER, self._begin_watch)

    async def _first_piece(self, headers: Headers) -> bytes:
        """Return the whole body if it is short and its length known, else what is there of it."""
        length, has_body = 0, False
        for name, value in headers:
            if name == b"expect" and value.lower() == b"100-continue":
                self._wants = self._more = True
                return b""
            if name == b"content-length":
                length = int(value)
                has_body = length > 0
            elif name == b"transfer-encoding":
                has_body = True
        if not has_body:
            body, self._more = await self._piece()
            return body
        pieces: list[bytes] = []
        async with body_in_time():
            while not pieces or (self._more and 0 < length <= GATHERED):
                body, self._more = await self._piece()
                pieces.append(body)
        return b"".join(pieces)

    async def _piece(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] != "http.request":
            raise _Gone
        return message.get("body", b""), message.get("more_body", False)

    # --- the response

    async def answer(self) -> None:
        """Answer the client."""
        try:
            name, value = await self._call.answer
        except asyncio.CancelledError:
            if self._call.answer.cancelled():
                raise _Gone from None
            raise
        if name:
            await self._stream(*value)
        else:
            status, headers, body, timing = value
            kept = self._headers(headers, timing)
            if not respond(self._scope, status, kept, body):
                await self._send({"type": "http.response.start", "status": status, "headers": kept})
                await self._send({"type": "http.response.body", "body": body})

    def _headers(self, headers: Headers, timing: Timing) -> Headers:
        kept = answered(headers)
        kept.append((b"server-timing", phases(self._call.age(), timing)))
        return kept

    async def _stream(self, status: int, headers: Headers, timing: Timing) -> None:
        """Pass a response on as it comes. One that breaks off is not ended, which cuts the connection."""
        stream, send = self._call.stream, self._send
        assert stream is not None
        self._begin_watch()
        kept = self._headers(headers, timing)
        await send({"type": "http.response.start", "status": status, "headers": kept})
        splitter = Splitter() if feeds.is_feed(self._scope, status, headers) else None
        try:
            while (content := await stream.gather(PIECE)) is not None:
                if splitter is not None:
                    sent, events = splitter.held, splitter.feed(content.data)
                    if any(event.id for event in events):
                        if await self._read_kept((status, answered(headers)), events, splitter, sent):
                            return
                        splitter = None
                    elif splitter.held > MAX_EVENT:
                        splitter = None
                await send({"type": "http.response.body", "body": content.data, "more_body": True})
        except exception.Error:
            return
        if not (stream.word and end_with_trailers(self._scope, stream.word)):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        stream.end()

    async def _read_kept(
        self, head: tuple[int, Headers], events: list[Event], splitter: Splitter, sent: int
    ) -> bool:
        """Have an event stream kept from these events on, and answer with what is kept; False if it cannot.

        `sent` bytes of the first of them have been sent.
        """
        route = self._route
        owner = route.workspace, feeds.requester(route, self._scope, self._token)
        try:
            place = await self._feeds.keep(self._call, owner, head, events, splitter)
        except BusError:
            return False
        self._following = asyncio.create_task(self._feeds.send(place, self._send, sent))
        await asyncio.wait((self._following,))
        return True

    # --- the client meanwhile

    def _begin_watch(self) -> None:
        if self._watch is None:
            self._watch = asyncio.create_task(self._attend(), name=f"client of {self._call.id}")

    async def _attend(self) -> None:
        """Pass the body on; notice when the client leaves, or waits for too long."""
        call = self._call
        try:
            async with _until_answered(call.answer, self._limit):
                if self._more:
                    await self._upload()
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            call.give_up(Problem(504, "timeout", "no container has answered in time"))
            return
        except _Gone:
            pass
        if self._following is None:
            call.cancel()
        else:
            self._following.cancel()

    async def _upload(self) -> None:
        call = self._call
        assert call.opened is not None
        assert call.wanted is not None
        stream = await call.opened
        if self._wants:
            await call.wanted
        try:
            while self._more:
                body, self._more = await self._piece()
                await stream.send(body)
            stream.end()
        except (exception.Error, HalfEnded):
            return  # nobody wants the rest

    def close(self) -> None:
        """Leave nothing behind."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self._following is None:
            self._call.leave()
        else:
            self._following.cancel()


def phases(age: float, timing: Timing) -> bytes:
    """Return what a request's time went for: waiting for a container to be ready, and to take it; running.

    It is `age` seconds old. What is spent on its way counts as waiting.
    """
    run, ready, *start = timing
    waited = max(0.0, age - run)
    if start and waited > ready:
        found = {**phases_of_start.back_from(waited, ready, start), "run": run}
        return b", ".join(b"%s;dur=%.1f" % (name.encode(), span * 1e3) for name, span in found.items())
    starting = max(0.0, waited - ready)
    return b"queue;dur=%.1f, start;dur=%.1f, run;dur=%.1f" % (
        (waited - starting) * 1e3, starting * 1e3, run * 1e3,
    )  # fmt: skip


@asynccontextmanager
async def body_in_time() -> AsyncIterator[None]:
    """Read a body that the client is to send soon; `Problem` if it does not."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            yield
    except TimeoutError:
        raise Problem(408, "timeout", f"the body did not come within {BODY_TIMEOUT:g} s") from None


@asynccontextmanager
async def _until_answered(answer: "asyncio.Future[Answer]", seconds: float) -> AsyncIterator[None]:
    """Raise `TimeoutError` in the block when no answer comes in time; with one it has all the time."""
    async with asyncio.timeout(seconds) as limit:

        def lift(_answer: "asyncio.Future[Answer]") -> None:
            with suppress(RuntimeError):  # the block is over, or late
                limit.reschedule(None)

        answer.add_done_callback(lift)
        yield
