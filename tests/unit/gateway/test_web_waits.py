"""What a request waits for, and how it ends where that does not come."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from waiting import until

from tidemill._caller import Caller
from tidemill._wire import subjects
from tidemill._wire.control import CancelCall, Done, FunctionHandle
from tidemill._wire.web import Route
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_common.requests import Endpoints
from tidemill_gateway.broker import Broker
from tidemill_gateway.problems import Problem
from tidemill_gateway.web import http
from tidemill_gateway.web.calls import Inbox, WebCall
from tidemill_gateway.web.feeds import Feeds
from tidemill_gateway.web.routes import Target

HANDLE = FunctionHandle("fu-1", "f", "ap-1", "po-1", "tm.inputs.cpu.0.main.cpu.po-1")
ROUTE = Route("main--app-f", "main", "main", "ap-1", "app", "fu-1", "f", "po-1", HANDLE.prefix, "asgi")
LENGTH, CHUNKS = (b"content-length", b"2"), (b"transfer-encoding", b"chunked")

Header = tuple[bytes, bytes]
Piece = tuple[bytes, bool]  # and whether more follow


async def refusal(caller: Caller, bus: MemoryBus, route: Route, header: Header, *pieces: Piece) -> int:
    """Return the status of a request that nobody answers, of which these pieces come, and then nothing."""
    left = iter(pieces)
    call = WebCall(Inbox(bus, Broker(bus)), caller, Target(route, HANDLE))
    scope = {
        "type": "http", "method": "POST", "scheme": "http", "http_version": "1.1", "path": "/",
        "raw_path": b"/", "query_string": b"", "client": None, "server": None, "headers": [header],
    }  # fmt: skip

    async def receive() -> Any:
        body, more = next(left, None) or await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(_message: Any) -> None:
        pytest.fail("nothing is answered here")

    feeds = Feeds(bus, asyncio.create_task, structlog.get_logger())
    with pytest.raises(Problem) as refused:
        await asyncio.wait_for(http.serve(call, route, "", scope, receive, send, feeds=feeds), 60)
    return refused.value.status_code


@pytest.mark.parametrize(("header", "pieces"), [(LENGTH, [(b"1", True)]), (LENGTH, []), (CHUNKS, [])])
async def test_a_request_whose_body_does_not_come_is_refused(
    monkeypatch: pytest.MonkeyPatch, header: Header, pieces: list[Piece]
) -> None:
    monkeypatch.setattr(http, "BODY_TIMEOUT", 0.02)
    bus = MemoryBus(MemoryServer())
    caller = Caller(bus, "main")
    assert await refusal(caller, bus, ROUTE, header, *pieces) == 408
    await caller.close()


async def test_a_request_that_no_container_takes_in_time_is_refused_and_leaves_the_queue() -> None:
    bus = MemoryBus(MemoryServer())
    await streams.apply(bus, "main")
    caller, cancelled = Caller(bus, "main"), []

    async def cancel(_workspace: str, request: CancelCall) -> Done:
        cancelled.append((request.prefix, request.num_inputs))
        return Done()

    make = Endpoints(structlog.get_logger(), CollectorRegistry())
    endpoint = make.endpoint("cancel", CancelCall, cancel)
    stop = await bus.serve("scheduler", "1.0.0", {subjects.scheduler(subjects.EVERY, "cancel"): endpoint})
    short = replace(ROUTE, timeout=0.01, startup_timeout=0.01)
    assert await refusal(caller, bus, short, LENGTH, (b"12", False)) == 504
    await until(lambda: cancelled)
    assert cancelled == [(HANDLE.prefix, 1)]
    await caller.close()
    await stop()
