"""Frames on a container's own ends of its sockets, which are read and written by blocking threads."""

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
    rest = b""
    while True:
        try:
            data = sock.recv(_READ)
        except OSError:
            return
        if not data:
            return
        frames, rest = split(rest + data if rest else data)
        yield from frames
        if len(rest) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(rest)
            if length > _READ:
                body = _read_large(sock, rest, length)
                if body is None:
                    return
                yield msgpack.unpackb(body, strict_map_key=False)
                rest = b""


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


def _read_large(sock: socket.socket, begun: bytes, length: int) -> bytearray | None:
    """Read a frame that is larger than the buffer straight into its place."""
    body = bytearray(length)
    done = len(begun) - LENGTH.size
    body[:done] = begun[LENGTH.size :]
    view = memoryview(body)
    while done < length:
        try:
            count = sock.recv_into(view[done:])
        except OSError:
            return None
        if not count:
            return None
        done += count
    return body
