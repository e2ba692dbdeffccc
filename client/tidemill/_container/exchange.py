"""One request to an ASGI app: its scope, what the app receives, what it sends.

A response that is complete when the app returns, and small, is the input's one output. Anything else goes
over a duplex stream, which is opened when it is needed: the body comes in pieces, the app goes on after
its response, or leaves its client waiting for the body. The app gets a few turns of the loop before its head
is sent alone: middleware passes the parts of a response from task to task.
"""

import asyncio
import time
from typing import Any, Protocol

import msgpack

from tidemill import exception
from tidemill._container import outcomes
from tidemill._container.guard import Key
from tidemill._container.lifespan import App, Message
from tidemill._container.outbox import Encoded
from tidemill._duplex import Duplex, HalfEnded
from tidemill._wire.duplex import PIECE_TO_CONTAINER, Frame
from tidemill._wire.messages import Format, Status
from tidemill._wire.web import CONTINUE, HEAD, MAX_INLINE, MAX_KEPT, Request, Timing

WINDOW = 256 * 1024  # bytes of a body that are kept here for the app
TURNS = 8  # of the loop, for the rest of a response to come
FRESH = 10.0  # seconds after its start in which a container tells what that took
LEAVE = 0.1  # seconds for an app to end by itself when its client has gone, before its task is cancelled

ASGI = {"version": "3.0", "spec_version": "2.4"}

Answer = tuple[int, Any, bytes]  # a `Response`, without the cost of making one
OVER_STREAM: Answer = (0, (), b"")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
FAILURE = 500  # the lowest status of an answer that is a failure
FAILED: Answer = (500, (_TEXT, (b"content-length", b"21")), b"Internal Server Error")

_pack = msgpack.Packer(autoreset=True).pack


class Web(Protocol):
    """What an exchange needs of the execution that it belongs to."""

    app: App
    state: dict[str, Any]
    ready_at: float  # as `time.perf_counter` tells it
    start: tuple[float, ...]  # seconds of each phase of the container's start

    def transmit(self, number: int, frame: Frame) -> None:
        """Send a frame of a stream to the worker."""

    def note(self, input_id: str) -> None:
        """Have a request recorded."""

    def finish(self, exchange: "Exchange", status: int, payload: Encoded) -> None:
        """Send the outcome of an input, which is over."""


class ClientGone(OSError):
    """What an app gets for sending to a client that has gone."""


class Exchange:
    """A request under way. Everything happens on the loop."""

    def __init__(self, web: Web, key: Key, request: Request) -> None:
        self.key = key
        self.input_id = ""
        self.began = time.perf_counter()
        self.task: asyncio.Task[None] | None = None
        self.stream: Duplex | None = None
        self._web = web
        self._request = request
        self._gone = asyncio.Event()  # the client, or its interest in more

    async def run(self) -> None:
        """Have the app answer, and send how that ended."""
        try:
            self.begin()
            await self._web.app(self.scope(), self.receive, self.send)
        except asyncio.CancelledError:
            self.abort("the request was cancelled")
            self._web.finish(self, *outcomes.cancelled())
            return
        except BaseException as error:
            if not isinstance(error, ClientGone):
                outcomes.show(error)
        answer = await self.end()
        if self.stream is not None:
            self.stream.end()
        self._web.finish(self, Status.SUCCESS, (Format.HTTP, _pack((*answer, self.timing()))))

    def timing(self) -> Timing:
        """Return the `Timing` of what is answered now."""
        ready = self.began - self._web.ready_at
        start = self._web.start if ready < FRESH else ()
        return (time.perf_counter() - self.began, ready, *start)

    def begin(self) -> None:
        """Prepare for the app."""

    async def end(self) -> Answer:
        """Return what is still to be answered now that the app has returned."""
        raise NotImplementedError

    async def receive(self) -> Message:
        """Return what comes next, as ASGI has it."""
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        """Take what the app sends, as ASGI has it."""
        raise NotImplementedError

    def scope(self) -> dict[str, Any]:
        """Return the scope that the app is called with."""
        request = self._request
        return {
            "type": request.kind,
            "asgi": ASGI,
            "http_version": request.http_version,
            "server": request.server,
            "client": request.client,
            "scheme": request.scheme,
            "root_path": request.root_path,
            "path": request.path,
            "raw_path": request.raw_path,
            "query_string": request.query,
            "headers": list(request.headers),
            "state": self._web.state.copy(),
        }

    def open_stream(self) -> Duplex:
        """Return the stream, opened if it is not open."""
        if self.stream is None:
            number = self.key[0]
            self.stream = stream = Duplex(
                lambda frame: self._web.transmit(number, frame),
                window=WINDOW,
                piece=PIECE_TO_CONTAINER,
                beat=0,
            )
            stream.on_break = self._on_break
            stream.open()
        return self.stream

    def abort(self, why: str) -> None:
        """Break the stream, if there is one: what was sent looks as incomplete as it is."""
        if self.stream is not None:
            self.stream.abort(exception.ServiceError(why))

    def leave(self) -> None:
        """Note that nobody waits for the response any more; an app that goes on nevertheless is cancelled."""
        if not self._gone.is_set():
            self._gone.set()
            if self.task is not None:
                asyncio.get_running_loop().call_later(self.patience, self.task.cancel)

    patience = LEAVE

    def _on_break(self, _error: exception.Error) -> None:
        self.leave()


class HttpExchange(Exchange):
    """A request over HTTP."""

    def __init__(self, web: Web, key: Key, request: Request) -> None:
        super().__init__(web, key, request)
        self._took_first = False  # piece of the body
        self._more = request.more
        self._expects = False  # the client waits to be asked for the body
        self._head: tuple[int, Any] | None = None  # status and headers
        self._head_sent = False  # over the stream
        self._body = b""  # of a response that is complete and not sent over the stream
        self._kept = bytearray()  # the same, as far as it is there, of one that is to be kept
        self._complete = False
        self._trailers: list[Any] | None = None  # those so far, of a response that announced some
        self._sending: asyncio.Task[None] | None = None  # of the body, after the app had its turns

    def begin(self) -> None:
        """Have the rest of the body come."""
        if self._more:
            self.open_stream()
            self._expects = any(name == b"expect" for name, _ in self._request.headers)

    def scope(self) -> dict[str, Any]:
        """See `Exchange.scope`."""
        scope = super().scope()
        scope["method"] = self._request.method
        scope["extensions"] = {"http.response.trailers": {}}
        return scope

    # --- what the app receives

    async def receive(self) -> Message:
        """Return a piece of the body, or that the client has gone."""
        if not self._took_first:
            self._took_first = True
            if self._request.body or not self._more:
                return self._piece(self._request.body)
        if self._more and not self._gone.is_set():
            return await self._next_piece()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _next_piece(self) -> Message:
        stream = self.open_stream()
        if self._expects:
            self._expects = False
            stream.control(CONTINUE)
        try:
            content = await stream.receive()
        except exception.Error:
            self.leave()
            return {"type": "http.disconnect"}
        self._more = content is not None
        return self._piece(content.data if content is not None else b"")

    def _piece(self, body: bytes) -> Message:
        return {"type": "http.request", "body": body, "more_body": self._more}

    # --- what it sends

    async def send(self, message: Message) -> None:
        """Take a part of the response."""
        match message["type"]:
            case "http.response.start" if self._head is None:
                self._head = message["status"], list(message.get("headers", ()))
                if message["status"] >= FAILURE:
                    self._web.note(self.input_id)
                self._trailers = [] if message.get("trailers") else None
                if not self._request.keep:
                    asyncio.get_running_loop().call_soon(self._on_turn, TURNS)
            case "http.response.body" if self._head is not None and not self._complete:
                await self._take_body(message.get("body", b""), more=message.get("more_body", False))
                if self._complete and self._trailers is None:
                    self._gone.set()  # there is nothing more to receive
            case "http.response.trailers" if self._trailers is not None:
                self._trailers += message.get("headers", ())
                if not message.get("more_trailers", False):
                    if not self._request.keep:
                        await self._send_rest()
                    self._gone.set()
            case kind:
                raise RuntimeError(f"the ASGI message {kind!r} has no place here")

    async def _take_body(self, body: bytes, *, more: bool) -> None:
        if self._gone.is_set():
            raise ClientGone("the client has gone")
        self._complete = not more
        if self._request.keep:
            self._keep(body)
            return
        if self._complete and not self._head_sent and len(body) <= MAX_INLINE:
            self._body = bytes(body)
            return
        self._send_head()
        await self._send_pieces(body)
        if self._complete and self._trailers is None:
            self.open_stream().end()

    def _keep(self, body: bytes) -> None:
        self._kept += body
        if len(self._kept) > MAX_KEPT:
            self._complete = False
            raise ValueError(f"the response to a request with an Idempotency-Key is above {MAX_KEPT:,} bytes")
        if self._complete:
            self._body = bytes(self._kept)

    async def _send_pieces(self, body: bytes) -> None:
        try:
            await self.open_stream().send(body)
        except (exception.Error, HalfEnded) as error:
            self.leave()
            raise ClientGone("the client has gone") from error

    def _send_head(self) -> None:
        if not self._head_sent:
            self._head_sent = True
            assert self._head is not None
            self.open_stream().control(HEAD, (*self._head, self.timing()))

    def _on_turn(self, left: int) -> None:
        """Send what there is over the stream, when the app has had its turns."""
        if self._head_sent or self.task is None or self.task.done():
            return
        if left:
            asyncio.get_running_loop().call_soon(self._on_turn, left - 1)
            return
        self._send_head()
        if self._complete:
            self._sending = asyncio.create_task(self._send_rest(), name="rest of a response")

    async def _send_rest(self) -> None:
        """Send what is left of a complete response, and its end."""
        self._send_head()
        body, self._body = self._body, b""
        try:
            await self._send_pieces(body)
        except ClientGone:
            return
        if self._trailers is None:
            self.open_stream().end()
        else:
            self.open_stream().end(self._trailers)

    async def end(self) -> Answer:
        """See `Exchange.end`."""
        if self._sending is not None:
            await self._sending
        if self._complete and not self._head_sent:
            assert self._head is not None
            return (*self._head, self._body)
        if not self._head_sent:
            self._web.note(self.input_id)
            return FAILED
        if not self._complete:
            self._web.note(self.input_id)
            self.abort("the function ended in the middle of its response")
        return OVER_STREAM
