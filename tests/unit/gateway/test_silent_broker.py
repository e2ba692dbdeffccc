"""A broker that says nothing is not a result that is not there yet."""

import asyncio

import pytest

from tidemill import exception
from tidemill._bus.protocol import Stored
from tidemill._caller import Caller
from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import CallRecord
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_gateway import calling
from tidemill_gateway.broker import Broker
from tidemill_gateway.sessions import Session

CALL = ids.new(ids.CALL)


class FallsSilent(MemoryBus):
    """Answers nothing that is asked of streams, once it has been told to."""

    is_silent = False

    async def last(self, stream: str, subject: str) -> Stored | None:
        if self.is_silent:
            await asyncio.get_running_loop().create_future()
        return await super().last(stream, subject)


@pytest.mark.parametrize("wait", [0.0, 0.02])
async def test_a_silent_broker_is_an_error_and_no_result_is_none(
    monkeypatch: pytest.MonkeyPatch, wait: float
) -> None:
    server = MemoryServer()
    bus = FallsSilent(server)
    await streams.apply_workspace(bus, "main")
    record = CallRecord(CALL, "po-1", "tm.inputs.cpu.0.main.cpu.po-1", 1, 0.0)
    await bus.store(subjects.call_record("main", CALL), coding.encode(record))
    session = Session(bus, Broker(bus), "main", Caller(bus, "main"), "ak-main-1")
    outcomes = calling.results(session, record, wait)
    assert await outcomes is None
    bus.is_silent = True
    monkeypatch.setattr(calling, "READ_TIMEOUT", 0.05)
    with pytest.raises(exception.ServiceError, match="does not answer"):
        await calling.results(session, record, wait)
    assert await calling.results_if_told(session, record, wait) is None
    await session.caller.close()
