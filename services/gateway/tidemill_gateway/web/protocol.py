"""uvicorn's protocol for HTTP/1.1, with bounds on the head of a request, and trailers of a response.

A request that another server on its way could read in another way is refused: with two hosts or none, or with
a body whose end the two would not agree on (RFC 9112, sections 3.2 and 6.1).

A request without a body that comes too soon is answered as soon as its head is read, or before that where
the same was refused before. A connection has one timer, however many requests come.
"""

import re
from typing import Any, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from tidemill._wire.web import Headers
from tidemill_gateway.web.refusals import Refusals

MAX_HEAD = 64 * 1024  # bytes of a request line and its headers
MAX_HEADERS = 512
CYCLE = "tidemill.cycle"  # where a scope has what answers it


# A request with one of these has more to it than its head.
_MORE = frozenset((b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"x-request-id"))
_REFUSED = STATUS_LINE[429]
_WITHOUT_BODY = frozenset((204, 205, 304))
_FRAMING_SIZES = frozenset((len("host"), len("transfer-encoding")))
_ABOUT_CONNECTION = frozenset((b"connection", b"transfer-encoding"))


_HOST = re.compile(rb"(?:[\w.~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")


class HeadTooLarge(Exception):
    """The head of a request is beyond its bounds."""


class Ambiguous(Exception):
    """A request could be read in two ways."""


class Protocol(HttpToolsProtocol):
    """See `HttpToolsProtocol`."""

    def __init__(self, *arguments: Any, refusals: Refusals, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._refusals = refusals
        self._refused = False  # the request that is being read
        self._unread = False  # the end of a request is still to come
        self._begun, self._refused_now = 0, 0  # requests in what is being read, and those of them refused
        self._idle_since: float | None = None  # loop time; None while a request is read or answered
        self._head = 0  # bytes that came while a head was read; -1 while a body is
        self._too_large = False
        self._has_host, self._is_chunked = False, False  # the request that is being read

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        is_first = self._refusals.any and not self._unread and self._is_free()
        if is_first and (answer := self._refusals.again(data)):
            self._send_refusal(answer)
            return
        if self._head >= 0:
            self._head += len(data)
        self._begun, self._refused_now = 0, 0
        super().data_received(data)
        if is_first and self._begun == self._refused_now == 1 and not self._unread:
            self._refusals.remember(data, self.url, self.headers)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """See `HttpToolsProtocol`."""
        self._unread = True
        self._has_host = self._is_chunked = False
        self._begun += 1
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. What is raised here ends the connection with `send_400_response`."""
        if len(self.headers) >= MAX_HEADERS or len(name) + len(value) > MAX_HEAD:
            self._too_large = True
            raise HeadTooLarge
        super().on_header(name, value)
        if len(name) in _FRAMING_SIZES:
            self._check_framing(*self.headers[-1])

    def on_headers_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        self._head = -1
        self._check_head()
        if (
            self._refusals.any
            and self._may_be_refused()
            and (answer := self._refusals.of(self.url, self.headers))
        ):
            self._refuse(answer)
            return
        super().on_headers_complete()
        cast(Scope, self.scope)[CYCLE] = self.cycle

    def _check_framing(self, name: bytes, value: bytes) -> None:
        """Raise `Ambiguous` for a header in which others may see another host, or another end of the body."""
        if name == b"host":
            if self._has_host or not _HOST.fullmatch(value):
                raise Ambiguous
            self._has_host = True
        elif name == b"transfer-encoding":
            if self._is_chunked or value.lower() != b"chunked":
                raise Ambiguous
            self._is_chunked = True

    def _check_head(self) -> None:
        version = self.parser.get_http_version()
        is_fine = self._has_host if version == "1.1" else version == "1.0" and not self._is_chunked
        if is_fine and self.parser.should_upgrade() and self._should_upgrade():
            is_fine = not self._is_chunked and all(name != b"content-length" for name, _ in self.headers)
        if not is_fine:
            raise Ambiguous
        if not self.url.startswith(b"/") and self.url != b"*":
            self._take_authority()

    def _take_authority(self) -> None:
        """Take the host of a target that names one, instead of the header's (section 3.2.2)."""
        target = httptools.parse_url(self.url)
        if target.host is None or target.userinfo is not None:
            raise Ambiguous
        name = b"[%b]" % target.host if b":" in target.host else target.host
        host = name if target.port is None else b"%b:%d" % (name, target.port)
        self.url = (target.path or b"/") + (b"" if target.query is None else b"?" + target.query)
        self.headers[:] = [(name, host if name == b"host" else value) for name, value in self.headers]

    def on_message_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        self._head = 0
        self._unread = False
        if self._refused:
            self._refused = False
        else:
            super().on_message_complete()

    def _may_be_refused(self) -> bool:
        """Return whether nothing but the head matters: no body, no earlier request that is unanswered."""
        return (
            self._is_free()
            and self.parser.get_method() != b"HEAD"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not any(name in _MORE for name, _ in self.headers)
        )

    def _is_free(self) -> bool:
        """Return whether a response may be written: none is under way, or waits to be taken."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.pipeline
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _refuse(self, answer: bytes) -> None:
        self._refused = True
        self._refused_now += 1
        self._send_refusal(answer)

    def _send_refusal(self, answer: bytes) -> None:
        self.transport.write(self._refusals.status(_REFUSED, self.server_state.default_headers) + answer)
        self.on_response_complete()

    # --- connections on which nothing comes

    def on_response_complete(self) -> None:
        """See `HttpToolsProtocol`, which makes a timer for each response."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    def _look_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nothing has come since the last response for long enough."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None or self.transport.is_closing():
            return  # the next response looks again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_after(left)
        else:
            self.transport.close()

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, or is too large to be read."""
        if not self._too_large:
            super().send_400_response(msg)
            return
        self.transport.write(STATUS_LINE[431] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()


def respond(scope: Scope, status: int, headers: Headers, body: bytes) -> bool:
    """Send a whole response in one write; return whether that is possible here, else nothing was sent.

    What is unusual is left to `RequestResponseCycle.send`: that refuses what cannot be sent, too.
    """
    cycle = scope.get(CYCLE)
    if (
        cycle is None
        or cycle.disconnected
        or cycle.response_started
        or cycle.flow.write_paused
        or scope["method"] == "HEAD"
        or not 200 <= status <= 599
        or status in _WITHOUT_BODY
    ):
        return False
    lines, has_length = [STATUS_LINE[status]], False
    for name, value in (*cycle.default_headers, *headers):
        low = name.lower()
        if low == b"content-length":
            has_length = True
            if value != b"%d" % len(body):
                return False
        elif low in _ABOUT_CONNECTION:
            return False
        if HEADER_RE.search(low) or HEADER_VALUE_RE.search(value):
            return False
        lines += (low, b": ", value, b"\r\n")
    if not has_length:
        lines.append(b"content-length: %d\r\n" % len(body))
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    lines += (b"\r\n", body)
    cycle.transport.write(b"".join(lines))
    _finish(cycle)
    return True


def end_with_trailers(scope: Scope, trailers: list[tuple[bytes, bytes]]) -> bool:
    """End a response whose body has been sent, with trailers; return whether it can have any."""
    cycle = scope.get(CYCLE)
    if cycle is None or not cycle.chunked_encoding or cycle.disconnected or scope["method"] == "HEAD":
        return False
    lines = b"".join(b"%s: %s\r\n" % (name, value) for name, value in trailers if _is_header(name, value))
    cycle.transport.write(b"0\r\n" + lines + b"\r\n")
    _finish(cycle)
    return True


def _finish(cycle: RequestResponseCycle) -> None:
    """Note that all of a response was written."""
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


def _is_header(name: bytes, value: bytes) -> bool:
    return not any(each in b"\r\n\0:" for each in name) and not any(each in b"\r\n\0" for each in value)
