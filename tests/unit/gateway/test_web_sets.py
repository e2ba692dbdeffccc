"""The sets of parameters that a gateway keeps in use."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from waiting import until

from tidemill import exception
from tidemill._wire import subjects
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import Parameter
from tidemill._wire.variants import GetUrlVariant
from tidemill._wire.web import Route
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_common.requests import Endpoints
from tidemill_gateway.broker import Broker
from tidemill_gateway.sessions import Sessions
from tidemill_gateway.web import sets
from tidemill_gateway.web.routes import Target
from tidemill_gateway.web.sets import Sets

BASE = FunctionHandle("fu-1", "Model", "ap-1", "po-1", "tm.inputs.cpu.0.main.cpu.po-1", methods={"show": {}})
ROUTE = Route(
    "main--app-model", "main", "main", "ap-1", "app", "fu-1", "Model.show", "po-1", BASE.prefix, "asgi",
    method="show", parameters=(Parameter("size", "str"),),
)  # fmt: skip
ROUNDS = 5

GetVariant = Callable[[str, GetUrlVariant], Awaitable[FunctionHandle]]


@asynccontextmanager
async def asking(get_url_variant: GetVariant) -> AsyncIterator[Sets]:
    """Give the sets of a gateway whose registry answers so."""
    bus = MemoryBus(MemoryServer())
    await streams.apply_workspace(bus, "main")
    make = Endpoints(structlog.get_logger(), CollectorRegistry())
    answer = make.endpoint("get_url_variant", GetUrlVariant, get_url_variant)
    stop = await bus.serve("registry", "1.0.0", {subjects.signed(subjects.EVERY, "get_url_variant"): answer})
    sessions = Sessions(bus, Broker(bus))
    yield Sets(sessions, structlog.get_logger())
    await sessions.close()
    await stop()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "ASK_AGAIN", 0.001)


async def test_a_set_that_is_gone_is_not_asked_about_for_ever() -> None:
    asked, done = Counter[str](), asyncio.Event()

    async def get_url_variant(_workspace: str, request: GetUrlVariant) -> FunctionHandle:
        size = request.parameters["size"]
        asked[size] += 1
        if size == "used" and asked[size] > ROUNDS:
            done.set()
        if size == "gone" and asked[size] > 1:
            raise exception.NotFoundError("there is no such pool")
        return BASE

    async with asking(get_url_variant) as known:
        async with known.target(Target(ROUTE, BASE), b"size=gone"):
            pass
        async with known.target(Target(ROUTE, BASE), b"size=used"):
            telling = asyncio.create_task(known.run())
            async with asyncio.timeout(30):
                await done.wait()
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
    assert asked["gone"] == 2


async def test_sets_in_use_do_not_wait_for_each_other_to_be_told() -> None:
    asked, together = Counter[str](), asyncio.Barrier(2)

    async def get_url_variant(_workspace: str, request: GetUrlVariant) -> FunctionHandle:
        size = request.parameters["size"]
        asked[size] += 1
        if asked[size] == 2:  # in the first round: answered when the other is asked about too
            await together.wait()
        return BASE

    with capture_logs() as told:
        async with asking(get_url_variant) as known:
            target = Target(ROUTE, BASE)
            async with known.target(target, b"size=one"), known.target(target, b"size=two"):
                telling = asyncio.create_task(known.run())
                await until(lambda: asked["one"] > 2 and asked["two"] > 2, what="for a second round")
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)
    assert not told  # none had to be given up
