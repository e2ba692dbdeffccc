"""Frames on a socket to a container: read with as little copying as can be, written at once.

    [length: 4 bytes][MessagePack array] [length][array] ...

The reader has one buffer. A frame that does not fit gets a buffer of its own size, so that a payload of
any size is read straight into its place.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgspec

from tidemill._container.frames import LENGTH
from tidemill.config import MAX_PAYLOAD_LIMIT

Frame = list[Any]

BUFFER = 64 * 1024
MAX_FRAME = min(MAX_PAYLOAD_LIMIT + (1 << 20), (1 << 32) - 1)
_JOINED = 64 * 1024  # bytes up to which a frame is copied behind its length instead of written apart

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class FrameProtocol(asyncio.BufferedProtocol):
    """One end of a socket that carries frames.

    `on_frame` is called with each frame, in order; `on_lost` once, when the socket is gone. What cannot
    be a frame ends the connection.
    """

    def __init__(self, on_frame: Callable[[Frame], None], on_lost: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._end = 0

    def send(self, frame: tuple[Any, ...]) -> None:
        """Write a frame; nothing happens when the socket is gone."""
        transport = self._transport
        if transport is None:
            return
        data = _encode(frame)
        if len(data) <= _JOINED:
            transport.write(LENGTH.pack(len(data)) + data)
        else:
            transport.write(LENGTH.pack(len(data)))
            transport.write(data)

    def waiting(self) -> int:
        """Return how many bytes were written that the other side has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close the socket; what was written before is still sent."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it

    def connection_lost(self, _error: Exception | None) -> None:
        """End."""
        self._transport = None
        self._on_lost()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return where to read to."""
        return self._view[self._end :]

    def buffer_updated(self, count: int) -> None:
        """Take what was read."""
        self._end += count
        try:
            self._make_room(self._take_frames())
        except (msgspec.DecodeError, ValueError):
            if self._transport is not None:
                self._transport.abort()

    def _take_frames(self) -> int:
        """Hand over every frame that is whole; return where the rest begins."""
        start, end, view = 0, self._end, self._view
        while end - start >= 4:
            (length,) = LENGTH.unpack_from(view, start)
            stop = start + 4 + length
            if stop > end:
                break
            frame = _decode(view[start + 4 : stop])
            if type(frame) is not list or not frame:
                raise ValueError("not a frame")
            start = stop
            self._on_frame(frame)
        return start

    def _make_room(self, start: int) -> None:
        """Move the rest to the front of a buffer in which its frame fits."""
        rest = self._end - start
        needed = BUFFER
        if rest >= 4:
            (length,) = LENGTH.unpack_from(self._view, start)
            if length > MAX_FRAME:
                raise ValueError("the frame is too long")
            needed = max(BUFFER, length + 4)
        if needed != len(self._buffer):
            buffer = bytearray(needed)
            buffer[:rest] = self._view[start : self._end]
            self._buffer, self._view = buffer, memoryview(buffer)
        elif start and rest:
            self._buffer[:rest] = self._buffer[start : self._end]
        self._end = rest
