"""What is said while the server is away."""

import pytest
from waiting import until

from tidemill import _outage
from tidemill._caller import Caller
from tidemill._outage import DOWN, LOST, Outage
from tidemill_common.bus.memory import MemoryServer


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outage, "PATIENCE", 0.001)


async def test_who_waits_hears_that_the_server_is_away_and_then_that_its_stack_is_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus, down = MemoryServer().connect(), False
    caller = Caller(bus, "main")
    Outage(bus, caller, lambda: down)
    with caller.listening("po-1", lambda _: None):
        for _ in range(2):  # the second outage is told too
            bus.disconnect()
            await until(lambda: LOST in caplog.text, what="for the loss to be told")
            down = True
            await until(lambda: DOWN in caplog.text, what="for the reason to be told")
            bus.reconnect()
            assert (caplog.text.count(LOST), caplog.text.count(DOWN)) == (1, 1)
            caplog.clear()
            down = False
    await caller.close()


async def test_nothing_is_said_where_nothing_waits(caplog: pytest.LogCaptureFixture) -> None:
    bus, looks = MemoryServer().connect(), []

    def is_down() -> bool:
        looks.append(1)
        return True

    caller = Caller(bus, "main")
    Outage(bus, caller, is_down)
    bus.disconnect()
    await until(lambda: looks, what="for it to be noticed")
    assert [record for record in caplog.records if record.name.startswith("tidemill")] == []
    bus.reconnect()
    await caller.close()
