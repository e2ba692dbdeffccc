"""Requests as bytes, for what no client library would send."""

import asyncio
import socket
from contextlib import suppress

from web_site import Site


def _address(site: Site) -> tuple[str, int]:
    host, port = site.gateway.removeprefix("http://").split(":")
    return host, int(port)


async def connection(site: Site) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to the gateway."""
    return await asyncio.open_connection(*_address(site))


async def raw(site: Site, text: bytes) -> bytes:
    """Return all that is answered to some bytes.

    Who refuses them may reset the connection behind its answer, for what it has not read. Streams would lose
    the answer then.
    """
    loop, pieces = asyncio.get_running_loop(), []
    with socket.socket() as plain:
        plain.setblocking(False)
        async with asyncio.timeout(60):
            await loop.sock_connect(plain, _address(site))
            with suppress(ConnectionError):
                await loop.sock_sendall(plain, text)
            with suppress(ConnectionError):
                while piece := await loop.sock_recv(plain, 65_536):
                    pieces.append(piece)
    return b"".join(pieces)
