"""nats-py's client with our own socket under it: the one module that knows its private parts.

nats-py does what is rare: servers, TLS, authentication, the handshake, pings, reconnecting, asking for
the subscriptions again. What happens for every message goes past it. Its way has four task switches per
round trip (reader, subscription, publisher, flusher); here a message's bytes reach their handler inside
the socket's callback, and everything published in one turn of the loop is one write.

What is relied on of nats-py's private parts is listed in `tests/integration/bus/test_nats_py.py`.
"""

import asyncio
import math
import random
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast
from urllib.parse import ParseResult

from nats import errors
from nats.aio.client import Client, Srv
from nats.aio.subscription import Subscription
from nats.aio.transport import Transport

from tidemill._bus.framing import Handler, Reader

RETRY_WAIT = (0.05, 0.2)  # seconds between tries to reconnect, jittered
PING_INTERVAL = 10  # seconds; a server that misses two answers is left
STEP_TIMEOUT = 2  # seconds for each step of a try to reconnect; another one follows
# The server asks the registry who somebody is. When nobody answers it refuses like anybody else, but only
# after the time that its configuration gives the registry (1 s).
SLOW_REFUSAL = 0.7  # seconds after which a refusal says nothing about the credentials
REFUSED_WAIT = 2.0  # seconds between tries to reconnect after refusals, at most
MOST_DOUBLED = 8  # times that the wait is doubled; refusals may go on for hours
REFUSED_FOR = 10.0  # seconds of quick refusals after which a reconnect is given up
CLOSE_TIMEOUT = 1.0  # seconds for buffered data to leave before a connection is cut


class Connection(Client):
    """A NATS client whose messages go straight to handlers.

    `lost` is called in the moment the connection breaks, `restored` after nats-py has made it again and
    the server has confirmed every subscription, `refused` when it will not be made again: the server has
    said for a while that it does not know these credentials any more.
    """

    def __init__(
        self, lost: Callable[[], None], restored: Callable[[], None], refused: Callable[[], None]
    ) -> None:
        super().__init__()
        self.handlers: dict[bytes, Handler] = {}
        self._lost = lost
        self._restored = restored
        self._refused = refused
        self._tries = 0
        self._tried_at = 0.0
        self._refusals = 0  # one after the other
        self._refused_since: float | None = None
        self._socket = _Socket(self.handlers, self._control, self._on_lost)
        self._transport = self._socket

    async def open(
        self, url: str, user: str, password: str, *, name: str, inbox: str, timeout: float
    ) -> None:
        """Connect to the first server of `url` (several, by commas) that takes us; else raise its error.

        Each has an equal part of `timeout` (seconds) to answer.
        """
        servers = url.split(",")
        for number, server in enumerate(servers, 1):
            try:
                # The first connection fails at once instead of trying for ever.
                await self.connect(
                    server,
                    user=user or None,
                    password=password or None,
                    name=name,
                    inbox_prefix=inbox,
                    allow_reconnect=False,
                    max_reconnect_attempts=-1,
                    connect_timeout=math.ceil(timeout / len(servers)),
                    ping_interval=PING_INTERVAL,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                )
                break
            except (OSError, errors.Error):
                self._socket.cut()
                if number == len(servers):
                    raise
                self._server_pool.clear()
        known = {server.uri.netloc for server in self._server_pool}
        for server in servers:
            uri = self._parse_server_uri(server)
            if uri.netloc not in known:
                self._server_pool.append(Srv(uri))
        self._tries = 0
        self.options["connect_timeout"] = STEP_TIMEOUT
        self.options["allow_reconnect"] = True

    def listen(self, subject: str, queue: str, handler: Handler) -> int:
        """Subscribe; nats-py asks for it again after a reconnect. Returns the subscription's id."""
        self._sid += 1
        self._subs[self._sid] = Subscription(self, self._sid, subject, queue=queue)
        self.handlers[b"%d" % self._sid] = handler
        if self.is_connected:
            self._socket.write(f"SUB {subject} {queue} {self._sid}\r\n".encode())
        return self._sid

    def unlisten(self, sid: int) -> None:
        """End a subscription. Nothing reaches its handler afterwards."""
        self.mute(sid)
        self.handlers.pop(b"%d" % sid, None)

    def mute(self, sid: int) -> None:
        """Ask for no more of a subscription; what the server has sent before still reaches its handler."""
        if self._subs.pop(sid, None) is not None and self.is_connected:
            self._socket.write(b"UNSUB %d\r\n" % sid)

    def write(self, pieces: list[bytes]) -> None:
        """Send frames."""
        self._socket.writelines(pieces)

    def waiting_to_leave(self) -> int:
        """Return how many bytes the socket has not taken yet."""
        return self._socket.waiting()

    def ping(self) -> "asyncio.Future[bool]":
        """Return a future that is done when the server has processed everything written so far."""
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(answered)
        self._socket.write(b"PING\r\n")
        return answered

    def cut(self) -> None:
        """Drop the connection at once; nats-py makes a new one."""
        self._socket.cut()

    async def _select_next_server(self) -> None:
        """Connect to the next server: at once the first time, then after a short wait."""
        if self._is_shut_out():
            self._refused()
            raise errors.NoServersError
        if self._tries:
            wait = random.uniform(*RETRY_WAIT)  # noqa: S311
            await asyncio.sleep(min(REFUSED_WAIT, wait * 2 ** min(self._refusals, MOST_DOUBLED)))
        self._tries += 1
        self._tried_at = time.monotonic()
        server = self._server_pool.pop(0)
        self._server_pool.append(server)
        self._current_server = server
        await self._connect_to_server(server)

    async def _process_err(self, err_msg: str) -> None:
        """Take an error of the server: never the end, but for most of them the end of the connection."""
        if "permissions violation" in err_msg:
            asyncio.get_running_loop().call_exception_handler({"message": f"NATS: {err_msg}"})
        else:
            self._socket.cut()

    def _control(self, line: bytes) -> None:
        """Take a line that is not a message."""
        if line == b"PING":
            self._socket.write(b"PONG\r\n")
        elif line == b"PONG":
            self._pings_outstanding = 0
            if self._pongs and not (answered := self._pongs.pop(0)).done():
                answered.set_result(True)
        elif line.startswith(b"-ERR"):
            _step(self._process_err(line[5:].decode().strip(" '").lower()))
        elif line.startswith(b"INFO"):
            self._process_servers(line[5:])
        elif line != b"+OK":
            raise ValueError(f"not the NATS protocol: {line[:80]!r}")

    def _process_servers(self, info: bytes) -> None:
        import json

        _step(self._process_info(json.loads(info)))

    def _is_shut_out(self) -> bool:
        since = self._refused_since
        return since is not None and time.monotonic() - since > REFUSED_FOR

    async def _on_error(self, error: Exception) -> None:
        """Count refusals. Whatever else matters is followed by `lost`."""
        if not is_refusal(error):
            return
        self._refusals += 1
        now = time.monotonic()
        if now - self._tried_at >= SLOW_REFUSAL:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now

    def _on_lost(self) -> None:
        self._tries = 0
        self._lost()

    async def _on_disconnected(self) -> None:
        self._lost()

    async def _on_reconnected(self) -> None:
        self._refusals, self._refused_since = 0, None
        self._restored()


class _Socket(Transport):
    """The transport that nats-py is given: lines during the handshake, then frames to the reader."""

    def __init__(
        self, handlers: dict[bytes, Handler], control: Callable[[bytes], None], lost: Callable[[], None]
    ) -> None:
        self._handlers = handlers
        self._control = control
        self._lost = lost
        self._stream: _Stream | None = None

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:  # noqa: ARG002
        if uri.scheme not in ("nats", "tls") or uri.hostname is None or uri.port is None:
            raise errors.Error(f"cannot connect to {uri.geturl()}")
        if self._stream is not None:
            self._stream.on_end = None
            self.cut()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(connect_timeout):
            _, self._stream = await loop.create_connection(self._new_stream, uri.hostname, uri.port)

    async def connect_tls(
        self,
        uri: "str | ParseResult",
        ssl_context: ssl.SSLContext,
        buffer_size: int,  # noqa: ARG002
        connect_timeout: int,
    ) -> None:
        plain, secure = self._opened, self._new_stream()
        hostname = uri if isinstance(uri, str) else uri.hostname
        plain.on_end = None  # the loop takes its socket over
        async with asyncio.timeout(connect_timeout):
            transport = await asyncio.get_running_loop().start_tls(
                plain.transport, secure, ssl_context, server_hostname=hostname
            )
        assert transport is not None
        secure.connection_made(transport)
        self._stream = secure

    def write(self, payload: bytes) -> None:
        if not (transport := self._opened.transport).is_closing():  # else its end is about to be told
            transport.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        if not (transport := self._opened.transport).is_closing():
            transport.writelines(payload)

    def waiting(self) -> int:
        transport = self._opened.transport
        return 0 if transport.is_closing() else transport.get_write_buffer_size()

    async def read(self, buffer_size: int) -> bytes:  # noqa: ARG002
        """Let frames go to the reader until the connection ends. Always returns nothing."""
        stream = self._opened
        stream.start_reading()
        await asyncio.shield(stream.ended)
        return b""

    async def readline(self) -> bytes:
        return await self._opened.readline()

    async def drain(self) -> None:
        """Nothing to wait for: what nats-py writes itself is small."""

    def close(self) -> None:
        if self._stream is not None:
            self._stream.transport.close()

    async def wait_closed(self) -> None:
        if self._stream is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await asyncio.shield(self._stream.ended)
        except TimeoutError:  # the other side takes no more
            self.cut()

    def cut(self) -> None:
        stream = self._stream
        if stream is not None and not stream.ended.done():  # early Pythons' TLS cannot be aborted twice
            stream.transport.abort()

    def at_eof(self) -> bool:
        return self._stream is None or self._stream.ended.done()

    def __bool__(self) -> bool:
        return True  # else nats-py makes a transport of its own

    @property
    def _opened(self) -> "_Stream":
        if self._stream is None:
            raise ConnectionError("not connected")
        return self._stream

    def _new_stream(self) -> "_Stream":
        return _Stream(Reader(self._handlers, self._control), self._lost)


class _Stream(asyncio.Protocol):
    """One TCP connection."""

    transport: asyncio.WriteTransport

    def __init__(self, reader: Reader, on_end: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.on_end: Callable[[], None] | None = on_end
        self._reader = reader
        self._reading = False
        self._early = b""  # arrived during the handshake
        self._more: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._reading:
            self._early += data
            self._wake()
            return
        try:
            self._reader.feed(data)
        except ValueError:  # whatever this is, it is no NATS server any more
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.ended.done():
            self.ended.set_result(None)
        self._wake()
        if self._reading and self.on_end is not None:
            self.on_end()

    async def readline(self) -> bytes:
        """Return the next line of the handshake, empty when the connection ended before."""
        while b"\n" not in self._early and not self.ended.done():
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        line, separator, self._early = self._early.partition(b"\n")
        return line + separator

    def start_reading(self) -> None:
        """Hand what arrives to the reader from now on."""
        if not self._reading:
            self._reading = True
            early, self._early = self._early, b""
            if early:
                self.data_received(early)

    def _wake(self) -> None:
        if not self._more.done():
            self._more.set_result(None)


def is_refusal(error: BaseException) -> bool:
    """Return whether an error of nats-py says that the server does not let us in."""
    told = str(error).lower()
    return isinstance(error, errors.Error) and ("authorization" in told or "authentication" in told)


def _step(coroutine: Any) -> None:
    """Run a coroutine of nats-py that waits for nothing."""
    with suppress(StopIteration):
        coroutine.send(None)
    coroutine.close()
