"""uvicorn's protocol for WebSockets, where RFC 6455 asks for more than the library behind it gives."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidHeader
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

VERSION = "Sec-WebSocket-Version"


class SocketProtocol(WebSocketsSansIOProtocol):
    """See `WebSocketsSansIOProtocol`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Connection(
            extensions=self.conn.available_extensions, max_size=self.config.ws_max_size, logger=self.logger
        )


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
