"""WebSockets frame by frame, for what no client library would send."""

import asyncio
import os
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of section 1.3 of RFC 6455, as the answer to it
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LONG = 60.0  # seconds for what comes at once, on a machine that does other things too


class Frame(NamedTuple):
    """A frame that a server has sent."""

    opcode: int
    data: bytes
    fin: bool = True
    rsv: int = 0


def frame(
    opcode: int,
    data: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    declared: int | None = None,
) -> bytes:
    """Return a frame as a client sends it. `rsv` has three bits; `declared` is the length that it claims."""
    length = len(data) if declared is None else declared
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if length < 126:
        head += bytes([masked << 7 | length])
    elif length < 65_536:
        head += bytes([masked << 7 | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([masked << 7 | 127]) + length.to_bytes(8, "big")
    if not masked:
        return head + data
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def close(code: int, reason: bytes = b"") -> bytes:
    """Return a frame that closes."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


class RawSocket:
    """A connection after its handshake; `head` is what was answered to that."""

    def __init__(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece in a write of its own."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def receive(self) -> Frame | None:
        """Return the next frame, None at the end; it must be as a server's frame has to be."""
        try:
            return await asyncio.wait_for(self._read(), LONG)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def rest(self) -> list[Frame]:
        """Return all frames up to the end."""
        frames = []
        while (frame := await self.receive()) is not None:
            frames.append(frame)
        return frames

    def end(self) -> None:
        """Go away without a word."""
        self._writer.close()

    async def _read(self) -> Frame:
        first, second = await self._reader.readexactly(2)
        assert not second & 0x80, "a server's frame must not be masked"
        length, extended = second, {126: 2, 127: 8}.get(second, 0)
        if extended:
            length = int.from_bytes(await self._reader.readexactly(extended), "big")
            assert length >= (126 if extended == 2 else 65_536), "a length that takes more bytes than it must"
        return Frame(first & 15, await self._reader.readexactly(length), bool(first & 0x80), first >> 4 & 7)


async def ask(url: str, headers: Iterable[str] | None = None) -> RawSocket:
    """Ask for a WebSocket, by default as RFC 6455 wants it; any answer will do."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [f"GET {parts.path} HTTP/1.1", "Host: x", *(handshake() if headers is None else headers), "", ""]
    writer.write("\r\n".join(lines).encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG)
    return RawSocket(head.decode(), reader, writer)


def handshake(**changes: str) -> list[str]:
    """Return the headers of a handshake: `version="12"` for another one, `version=""` for none."""
    headers = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec_websocket_key": KEY,
        "sec_websocket_version": "13",
    } | changes
    return [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value]
