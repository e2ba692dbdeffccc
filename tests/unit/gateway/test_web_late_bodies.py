"""A body that does not come ends its request."""

import asyncio
from typing import Any

import pytest
import structlog

from tidemill._caller import Caller
from tidemill._wire.control import FunctionHandle
from tidemill._wire.web import Route
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_gateway.broker import Broker
from tidemill_gateway.problems import Problem
from tidemill_gateway.web import http
from tidemill_gateway.web.calls import Inbox, WebCall
from tidemill_gateway.web.feeds import Feeds
from tidemill_gateway.web.routes import Target

HANDLE = FunctionHandle("fu-1", "f", "ap-1", "po-1", "tm.inputs.cpu.0.main.cpu.po-1")
ROUTE = Route("main--app-f", "main", "main", "ap-1", "app", "fu-1", "f", "po-1", HANDLE.prefix, "asgi")


LENGTH, CHUNKS = (b"content-length", b"2"), (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(("header", "pieces"), [(LENGTH, [b"1"]), (LENGTH, []), (CHUNKS, [])])
async def test_a_request_whose_body_does_not_come_is_refused_with_408(
    monkeypatch: pytest.MonkeyPatch, header: tuple[bytes, bytes], pieces: list[bytes]
) -> None:
    monkeypatch.setattr(http, "BODY_TIMEOUT", 0.02)
    bus = MemoryBus(MemoryServer())
    caller, feeds = Caller(bus, "main"), Feeds(bus, asyncio.create_task, structlog.get_logger())
    call = WebCall(Inbox(bus, Broker(bus)), caller, Target(ROUTE, HANDLE))

    async def receive() -> Any:
        if not pieces:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    async def send(_message: Any) -> None:
        pytest.fail("nothing is answered here")

    scope = {"type": "http", "method": "POST", "headers": [header]}
    serving = http.serve(call, ROUTE, "", scope, receive, send, feeds=feeds)
    with pytest.raises(Problem) as refused:
        await asyncio.wait_for(serving, 20)
    assert refused.value.status_code == 408
    await caller.close()
