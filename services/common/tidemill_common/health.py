"""Liveness, readiness and metrics over HTTP: three paths, no framework, no dependencies.

`/healthz` answers as long as the event loop turns, whatever has become of NATS or PostgreSQL: a process
must not be restarted because something else is away. `/readyz` tells whether work should come here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from tidemill_common import metrics

READY_TIMEOUT = 2.0  # seconds until a readiness check that does not answer counts as not ready
HEAD_TIMEOUT = 5.0  # seconds for a request's head to arrive
HEAD_LIMIT = 16 * 1024
MAX_CONNECTIONS = 64

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Unavailable"}
_TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """An HTTP answer, before it is written."""

    status: int
    content_type: str
    body: bytes


class Health:
    """What a process can say about itself."""

    def __init__(self, registry: metrics.Registry, ready: Callable[[], Awaitable[str | None]]) -> None:
        self._registry = registry
        self._ready = ready

    async def answer(self, path: str, accept: str = "") -> Answer:
        """Return the answer to a GET of `path`."""
        if path == "/healthz":
            return Answer(200, _TEXT, b"ok\n")
        if path == "/readyz":
            reason = await self.not_ready()
            return Answer(503, _TEXT, f"{reason}\n".encode()) if reason else Answer(200, _TEXT, b"ready\n")
        if path == "/metrics":
            return Answer(200, *metrics.render(self._registry, accept))
        return Answer(404, _TEXT, b"not found\n")

    async def not_ready(self) -> str | None:
        """Return why no work should come here, or None."""
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                return await self._ready()
        except TimeoutError:
            return "the check for readiness does not answer"
        except Exception as error:  # whatever is wrong, the answer is "not ready"
            return f"the check for readiness failed: {error}"


class HealthServer:
    """Answers a process's health on a port of its own."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def start(self, host: str, port: int) -> str:
        """Listen and return the address, `host:port`."""
        self._server = await asyncio.start_server(self._connection, host, port, limit=HEAD_LIMIT)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close(self) -> None:
        """Stop listening and end the connections that are open."""
        if self._server is not None:
            self._server.close()
        ended = list(self._connections.values())
        for writer in self._connections:
            writer.transport.abort()
        for event in ended:
            await event.wait()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = self._connections[writer] = asyncio.Event()
        try:
            if len(self._connections) <= MAX_CONNECTIONS:
                await self._serve(reader, writer)
        finally:
            del self._connections[writer]
            ended.set()
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request. A client that goes away or does not speak HTTP gets nothing more."""
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(HEAD_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
            method, answer = await self._respond(head.decode("latin-1"))
            writer.write(_encode(answer, with_body=method != "HEAD"))
            async with asyncio.timeout(HEAD_TIMEOUT):
                await writer.drain()

    async def _respond(self, head: str) -> tuple[str, Answer]:
        request, *lines = head.split("\r\n")
        parts = request.split(" ")
        if len(parts) != 3:
            return "", Answer(400, _TEXT, b"not a request\n")
        method, target, _ = parts
        if method not in ("GET", "HEAD"):
            return method, Answer(405, _TEXT, b"only GET and HEAD\n")
        headers = (line.partition(":") for line in lines)
        accept = next((value.strip() for name, _, value in headers if name.lower() == "accept"), "")
        return method, await self._health.answer(target.partition("?")[0], accept)


def _encode(answer: Answer, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (answer.body if with_body else b"")
