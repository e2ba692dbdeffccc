"""uvicorn's protocol for HTTP/1.1, with bounds on the head of a request, and trailers of a response."""

from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD = 64 * 1024  # bytes of a request line and its headers
MAX_HEADERS = 512
CYCLE = "tidemill.cycle"  # where a scope has what answers it


class HeadTooLarge(Exception):
    """The head of a request is beyond its bounds."""


class Protocol(HttpToolsProtocol):
    """See `HttpToolsProtocol`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head = 0  # bytes that came while a head was read; -1 while a body is
        self._too_large = False

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._head >= 0:
            self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. What is raised here ends the connection with `send_400_response`."""
        if len(self.headers) >= MAX_HEADERS or len(name) + len(value) > MAX_HEAD:
            self._too_large = True
            raise HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        self._head = -1
        super().on_headers_complete()
        cast(Scope, self.scope)[CYCLE] = self.cycle

    def on_message_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        self._head = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, or is too large to be read."""
        if not self._too_large:
            super().send_400_response(msg)
            return
        self.transport.write(STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()


def end_with_trailers(scope: Scope, trailers: list[tuple[bytes, bytes]]) -> bool:
    """End a response whose body has been sent, with trailers; return whether it can have any."""
    cycle = scope.get(CYCLE)
    if cycle is None or not cycle.chunked_encoding or cycle.disconnected or scope["method"] == "HEAD":
        return False
    lines = b"".join(b"%s: %s\r\n" % (name, value) for name, value in trailers if _is_header(name, value))
    cycle.transport.write(b"0\r\n" + lines + b"\r\n")
    cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def _is_header(name: bytes, value: bytes) -> bool:
    return not any(each in b"\r\n\0:" for each in name) and not any(each in b"\r\n\0" for each in value)
