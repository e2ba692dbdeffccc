"""The looks that each call of a session gets, every second."""

import pytest
from waiting import until

from tidemill import _caller
from tidemill._attached import RawOutput
from tidemill._caller import Caller
from tidemill._wire.control import FunctionHandle
from tidemill_common.bus.memory import MemoryServer

HANDLE = FunctionHandle("fu-1", "f", "ap-1", "po-1", "tm.inputs.cpu.0.main.cpu.po-1")


class Call:
    """A call that counts the looks it gets, and may meet an error in each."""

    def __init__(self, caller: Caller, id: str, error: Exception | None = None) -> None:
        self.id = id
        self.handle = HANDLE
        self.looks = 0
        self.failed: list[BaseException] = []
        self._caller = caller
        self._error = error

    def on_outputs(self, items: list[RawOutput], seconds: float, container: str) -> None:
        raise AssertionError("nothing comes")

    def on_tick(self, now: float) -> None:
        self.looks += 1
        if self._error is not None:
            raise self._error

    def fail(self, error: BaseException) -> None:
        self.failed.append(error)
        self._caller.end(self)

    def oldest(self) -> tuple[int, float] | None:
        return None


async def test_a_call_that_breaks_when_it_is_looked_after_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_caller, "TICK", 0.001)
    caller, error = Caller(MemoryServer().connect(), "main"), RuntimeError("broken")
    broken, well = Call(caller, "fc-1", error), Call(caller, "fc-2")
    caller.begin(broken)
    caller.begin(well)
    await until(lambda: well.looks > 1, what="for looks at the other call")
    assert (broken.looks, broken.failed) == (1, [error])
    caller.end(well)
    await caller.close()
