"""Frames on a container's own ends of its sockets. A blocking read keeps nobody else from them."""

import socket
from collections.abc import Iterator
from typing import Any

import msgpack

from tidemill._container.frames import LENGTH

Frame = list[Any]

MAX_FRAME = (1 << 32) - 1  # bytes, by the width of the length
_READ = 64 * 1024


def pack(frame: tuple[Any, ...]) -> bytes:
    """Return a frame as it stands on a socket."""
    body: bytes = msgpack.packb(frame)
    return LENGTH.pack(len(body)) + body


def read(sock: socket.socket) -> Iterator[Frame]:
    """Yield the frames that arrive, until the other side has closed."""
    reader = Reader(sock)
    while (frames := reader.receive()) is not None:
        yield from frames


class Reader:
    """What arrives on one socket, as frames. One that is larger than the buffer is read into its place."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self._large: bytearray | None = None
        self._done = 0  # bytes of that

    def receive(self, *, wait: bool = True) -> list[Frame] | None:
        """Return the frames that are complete with what arrives next, None when the other side has closed.

        Without `wait` only with what has arrived already.
        """
        flags = 0 if wait else socket.MSG_DONTWAIT
        try:
            if self._large is not None:
                return self._receive_large(self._large, flags)
            data = self._sock.recv(_READ, flags)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        frames, rest = split(self._rest + data if self._rest else data)
        if len(rest) >= LENGTH.size and (length := LENGTH.unpack_from(rest)[0]) > _READ:
            self._large, self._done = bytearray(length), len(rest) - LENGTH.size
            self._large[: self._done] = rest[LENGTH.size :]
            rest = b""
        self._rest = rest
        return frames

    def _receive_large(self, body: bytearray, flags: int) -> list[Frame] | None:
        with memoryview(body) as view:
            count = self._sock.recv_into(view[self._done :], 0, flags)
        if not count:
            return None
        self._done += count
        if self._done < len(body):
            return []
        self._large = None
        return [msgpack.unpackb(body, strict_map_key=False)]


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """Return the whole frames at the front of `data`, and what is left."""
    frames = []
    view, offset, end = memoryview(data), 0, len(data)
    while end - offset >= LENGTH.size:
        (length,) = LENGTH.unpack_from(data, offset)
        start = offset + LENGTH.size
        if end - start < length:
            break
        offset = start + length
        frames.append(msgpack.unpackb(view[start:offset], strict_map_key=False))
    return frames, data[offset:]
