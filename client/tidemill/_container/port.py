"""An ASGI app in front of a port of this container: what a web server there answers.

Responses are passed on as they come: not followed where they redirect, not unpacked where they are packed.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
from yarl import URL

from tidemill import exception
from tidemill._container.lifespan import Message
from tidemill._wire.web import MAX_INLINE

HOST = "127.0.0.1"
PROBE = 0.02  # seconds between looks whether the server listens
CONNECT = 10.0  # seconds for it to take a connection
MAX_HEADER = 64 * 1024  # bytes of a line of its head
MAX_MESSAGE = 16 << 20  # bytes of a WebSocket's message

# What concerns a connection, not what is said over it.
_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade expect".split()
)
_HANDSHAKE = frozenset(
    b"sec-websocket-key sec-websocket-version sec-websocket-extensions sec-websocket-protocol".split()
)
_AUTOMATIC = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class PortProxy:
    """Passes requests on to a port of this container."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._session: aiohttp.ClientSession

    async def wait(self, timeout: float) -> None:
        """Return when the server listens; `ExecutionError` if it does not in time."""
        try:
            async with asyncio.timeout(timeout):
                while not await self._listens():  # noqa: ASYNC110 - another program
                    await asyncio.sleep(PROBE)
        except TimeoutError:
            raise exception.ExecutionError(
                f"no web server listens on port {self._port} after {timeout:g} s",
                hint="start it in the background, on 0.0.0.0; startup_timeout= gives it more time",
            ) from None

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, self._port)
        except OSError:
            return False
        writer.close()
        return True

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            if scope["type"] == "http":
                await self._pass_on(scope, receive, send)
            else:
                await self._connect(scope, receive, send)
        except aiohttp.ClientConnectorError:
            # Its server has ended, and the container with it: others are started instead.
            await _refuse(scope["type"], send)
            signal.raise_signal(signal.SIGTERM)

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        async with aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=0, force_close=False),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT),
            skip_auto_headers=_AUTOMATIC,
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        ) as self._session:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    # --- HTTP

    async def _pass_on(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        first = await receive()
        body = _pieces(first, receive) if first.get("more_body") else first.get("body") or None
        async with self._session.request(
            scope["method"],
            self._url(scope, "http"),
            headers=_headers(scope, _HOP),
            data=body,
            allow_redirects=False,
        ) as answer:
            headers = [header for header in answer.raw_headers if header[0].lower() not in _HOP]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            if answer.content_length is not None and answer.content_length <= MAX_INLINE:
                await send({"type": "http.response.body", "body": await answer.read()})
                return
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _url(self, scope: dict[str, Any], scheme: str) -> URL:
        """Return the address at the port: what leads to the function is not the server's to know."""
        path = scope["raw_path"].decode("latin-1").removeprefix(scope["root_path"]) or "/"
        query = scope["query_string"].decode("latin-1")
        return URL(f"{scheme}://{HOST}:{self._port}{path}{'?' * bool(query)}{query}", encoded=True)

    # --- WebSockets

    async def _connect(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        try:
            socket = await self._session.ws_connect(
                self._url(scope, "ws"),
                headers=_headers(scope, _HOP | _HANDSHAKE),
                protocols=scope["subprotocols"],
                max_msg_size=MAX_MESSAGE,
            )
        except aiohttp.WSServerHandshakeError as error:
            await send({"type": "websocket.http.response.start", "status": error.status, "headers": []})
            await send({"type": "websocket.http.response.body", "body": error.message.encode()})
            return
        async with socket:
            await send({"type": "websocket.accept", "subprotocol": socket.protocol})
            up = asyncio.create_task(_up(receive, socket), name="to the web server")
            try:
                await _down(socket, send)
            finally:
                up.cancel()


async def _up(receive: Any, socket: aiohttp.ClientWebSocketResponse) -> None:
    with suppress(ConnectionError):
        while (message := await receive())["type"] != "websocket.disconnect":
            if (text := message.get("text")) is not None:
                await socket.send_str(text)
            else:
                await socket.send_bytes(message["bytes"])
        await socket.close(code=message["code"], message=message.get("reason", "").encode())


async def _down(socket: aiohttp.ClientWebSocketResponse, send: Any) -> None:
    async for message in socket:
        kind = "text" if message.type is aiohttp.WSMsgType.TEXT else "bytes"
        await send({"type": "websocket.send", kind: message.data})
    await send({"type": "websocket.close", "code": socket.close_code or 1006})


async def _pieces(first: Message, receive: Any) -> AsyncIterator[bytes]:
    message = first
    while True:
        if body := message.get("body"):
            yield body
        if not message.get("more_body"):
            return
        message = await receive()


def _headers(scope: dict[str, Any], left_out: frozenset[bytes]) -> list[tuple[str, str]]:
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name not in left_out
    ]


async def _refuse(kind: str, send: Any) -> None:
    prefix = "http" if kind == "http" else "websocket.http"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": f"{prefix}.response.start", "status": 502, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": b"the web server of this function has ended"})
