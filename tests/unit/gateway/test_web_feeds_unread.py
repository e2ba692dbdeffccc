"""Event streams that are kept and that nobody reads."""

import asyncio

import pytest
from waiting import until

from tidemill._caller import Caller
from tidemill._wire import subjects
from tidemill._wire.control import FunctionHandle
from tidemill._wire.web import OPENED, Route
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_gateway.broker import Broker
from tidemill_gateway.web import feeds
from tidemill_gateway.web.calls import Inbox, WebCall
from tidemill_gateway.web.events import Event, Splitter
from tidemill_gateway.web.feeds import Place, Recorder
from tidemill_gateway.web.routes import Target

HANDLE = FunctionHandle("fu-1", "f", "ap-1", "po-1", "tm.inputs.cpu.0.main.cpu.po-1")
ROUTE = Route("main--app-f", "main", "main", "ap-1", "app", "fu-1", "f", "po-1", HANDLE.prefix, "asgi")
EVENTS = [Event(b"data: %d\n\n" % number, None) for number in range(5)]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GRACE", 0.05), ("BEAT", 0.01), ("AHEAD", 2)):
        monkeypatch.setattr(feeds, name, value)


@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize("events", [[], EVENTS])
async def test_a_feed_ends_when_nobody_has_read_it_for_long(is_away: bool, events: list[Event]) -> None:
    bus = MemoryBus(MemoryServer())
    await streams.apply_workspace(bus, "main")
    caller = Caller(bus, "main")
    call = WebCall(Inbox(bus, Broker(bus)), caller, Target(ROUTE, HANDLE))
    call.on_frame((OPENED, "wo-1"))
    recording = asyncio.create_task(Recorder(bus, call, Place("main", "r", "fd-1"), Splitter()).run(events))
    if is_away:
        await asyncio.sleep(0)
        bus.disconnect()
        await until(call.answer.done)
        bus.reconnect()
    await asyncio.wait_for(recording, 60)
    assert await bus.last(subjects.feeds_stream("main"), subjects.feed("main", "r", "end"))
    await caller.close()
