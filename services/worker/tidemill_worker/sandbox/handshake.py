"""The worker's side of the handshake with a container that is being made, on the socket that becomes init's.

container: hello ──>   <── its disk   <── what it must know   ready ──>
or, at any time: sorry, and why ──>
"""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Any

import msgpack

from tidemill._container import sandbox as inside
from tidemill_worker.tier import ForkError

_MAX_WORDS = 4096
_CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid


async def hello(control: socket.socket) -> int:
    """Return the pid, as this machine counts, of who says hello; `ForkError` for an apology."""
    control.setblocking(False)
    await _readable(control)
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    if data != inside.HELLO or not ancillary:
        raise ForkError(await _apology(control, data))
    return int(_CREDENTIALS.unpack(ancillary[0][2][: _CREDENTIALS.size])[0])


def send(control: socket.socket, value: dict[str, Any]) -> None:
    """Tell a container what it must know; `ForkError` if it does not listen."""
    data = msgpack.packb(value)
    if control.send(len(data).to_bytes(4, "big") + data) != len(data) + 4:
        raise ForkError("the sandbox does not listen")


async def expect(control: socket.socket, answer: bytes) -> None:
    """Return when a container has said this; `ForkError` for an apology."""
    await _readable(control)
    data = control.recv(1)
    if data != answer:
        raise ForkError(await _apology(control, data))


async def _apology(control: socket.socket, begun: bytes) -> str:
    """Return why there is no container."""
    words = b""
    while begun and len(words) < _MAX_WORDS:
        await _readable(control)
        piece = control.recv(_MAX_WORDS)
        if not piece:
            break
        words += piece
    return f"the sandbox could not be made: {words.decode(errors='replace') or 'it ended'}"


async def _readable(control: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(control.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        with suppress(ValueError):
            loop.remove_reader(control.fileno())
