"""uvicorn inside a service: the service owns signals, logs and the loop, uvicorn the connections."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

import uvicorn

from tidemill_gateway.web.protocol import Protocol
from tidemill_gateway.web.socket_protocol import SocketProtocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from tidemill_gateway.web.refusals import Refusals

BACKLOG = 2_048
MAX_MESSAGE = 16 << 20  # bytes of a WebSocket's message
KEEP_ALIVE = 75  # seconds
SHUTDOWN_TIMEOUT = 25  # seconds for requests under way, within the service's own drain


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves one application on one address until it is told to stop."""

    def __init__(
        self, app: "ASGIApp", refusals: "Refusals", host: str, port: int, trusted_proxies: str = ""
    ) -> None:
        self._socket = _listen(host, port)
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="none",
                http=cast("type[asyncio.Protocol]", partial(Protocol, refusals=refusals)),
                ws=SocketProtocol,
                ws_max_size=MAX_MESSAGE,
                lifespan="off",
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=trusted_proxies,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
            )
        )
        self._ended = asyncio.Event()

    @property
    def address(self) -> str:
        """Where it listens, `host:port`."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def run(self) -> None:
        """Serve; return when stopped and every request under way was answered or cut off."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Take no new connections, finish the requests under way, end."""
        self._server.should_exit = True
        await self._ended.wait()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
