"""A whole response is one write, and the same as by the longer way; what is unusual goes that way."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tidemill._wire.web import Headers
from tidemill_gateway.web.protocol import CYCLE, respond

JSON: Headers = [(b"Content-Type", b"application/json"), (b"content-length", b"2")]


class Written:
    """What a transport was given."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True


def request(method: str = "GET", *, keep_alive: bool = True) -> tuple[Any, RequestResponseCycle, Written]:
    """Return the scope of a request, what answers it, and where that writes to."""
    written, log = Written(), logging.getLogger("test")
    scope: Any = {"type": "http", "method": method}
    transport: Any = written
    done: Callable[..., None] = lambda: None  # noqa: E731
    scope[CYCLE] = cycle = RequestResponseCycle(
        scope, transport, FlowControl(transport), log, log, False, [(b"date", b"now")], asyncio.Event(),
        False, keep_alive, done,
    )  # fmt: skip
    return scope, cycle, written


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_a_whole_response_is_one_write(keep_alive: bool) -> None:
    scope, cycle, written = request(keep_alive=keep_alive)
    assert respond(scope, 201, JSON, b"{}")
    assert cycle.response_complete
    other, long_way, expected = request(keep_alive=keep_alive)
    await long_way.send({"type": "http.response.start", "status": 201, "headers": JSON})
    await long_way.send({"type": "http.response.body", "body": b"{}", "more_body": False})
    assert written.writes == [b"".join(expected.writes)]
    assert written.closed == expected.closed == (not keep_alive)
    assert other[CYCLE] is long_way


async def test_a_response_without_a_length_gets_one() -> None:
    scope, _, written = request()
    assert respond(scope, 200, [], b"hello")
    assert written.writes == [b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 5\r\n\r\nhello"]


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("HEAD", 200, JSON),
        ("GET", 204, []),
        ("GET", 304, []),
        ("GET", 600, []),
        ("GET", 200, [(b"content-length", b"3")]),
        ("GET", 200, [(b"x-a", b"1\r\nx-b: 2")]),
        ("GET", 200, [(b"x a", b"1")]),
        ("GET", 200, [(b"connection", b"close")]),
    ],
)
async def test_what_is_unusual_is_left_alone(method: str, status: int, headers: Headers) -> None:
    scope, cycle, written = request(method)
    assert not respond(scope, status, headers, b"{}")
    assert not written.writes
    assert not cycle.response_started


async def test_a_client_that_has_gone_gets_nothing() -> None:
    scope, cycle, written = request()
    cycle.disconnected = True
    assert not respond(scope, 200, JSON, b"{}")
    assert not written.writes
