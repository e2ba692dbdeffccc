"""uvicorn's protocol for WebSockets, where RFC 6455 asks for more than the library behind it gives."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidHeader
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

VERSION = "Sec-WebSocket-Version"
MUCH = 16 << 10  # bytes that came together, behind which there may be more
QUIET, LINGER = 0.5, 5.0  # seconds in which nothing more of that has come, and for all of it


class SocketProtocol(WebSocketsSansIOProtocol):
    """See `WebSocketsSansIOProtocol`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Connection(
            extensions=self.conn.available_extensions, max_size=self.config.ws_max_size, logger=self.logger
        )
        self._size = 0  # of what is being read
        self._heard: float | None = None  # when something was thrown away, in loop time

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. What comes after a failure is read, and thrown away."""
        if self._heard is not None:
            self._heard = self.loop.time()
            return
        self._size = len(data)
        super().data_received(data)

    def handle_parser_exception(self) -> None:
        """Say what is wrong, and close: once the client sends no more, if it is about to send much.

        Who closes while data comes resets the connection, and a client that sends may never hear why.
        """
        if self._size < MUCH:
            super().handle_parser_exception()
            return
        sent = self.conn.close_sent
        assert sent is not None
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._heard = now = self.loop.time()
        self._close_when_quiet(now + LINGER)

    def _close_when_quiet(self, deadline: float) -> None:
        assert self._heard is not None
        left = min(self._heard + QUIET, deadline) - self.loop.time()
        if left > 0:
            self.close_timer = self.loop.call_later(left, self._close_when_quiet, deadline)
        else:
            self.close_timer = None
            self.transport.close()


class _Connection(ServerProtocol):
    def accept(self, request: Request) -> Response:
        """Answer a handshake; one of another version with the version that is spoken here (section 4.4)."""
        response = super().accept(request)
        if isinstance(self.handshake_exc, InvalidHeader) and self.handshake_exc.name == VERSION:
            response.status_code, response.reason_phrase = 426, "Upgrade Required"
            response.headers["Upgrade"] = "websocket"
            response.headers[VERSION] = "13"
        return response

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame. A close may stand between the fragments of a message, as any control frame may."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)
