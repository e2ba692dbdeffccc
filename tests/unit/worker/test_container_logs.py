"""What a container writes is stored in order, and what had to be left out is told where it is missing."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from waiting import until

from tidemill._wire import coding, subjects
from tidemill._wire.messages import LogRecord
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_common.metrics import new_registry
from tidemill_worker.logs import BUDGET, STDOUT, Log
from tidemill_worker.metrics import Metrics

POOL: Any = SimpleNamespace(workspace="main", app_id="ap-1", id="po-1", spec=SimpleNamespace(name="f"))


class Written:
    """The log of one container, and what the broker has of it."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        node: Any = SimpleNamespace(
            bus=bus, log=structlog.get_logger(), metrics=Metrics(new_registry("worker", "1"))
        )
        self.log = Log(node, POOL, "co-1")

    async def text(self) -> str:
        found = self.bus.read(subjects.logs_stream("main"), "tm.logs.>")
        batches = [coding.decode(list[LogRecord], stored.data) async for stored in found]
        return "".join(record.text for batch in batches for record in batch)


@pytest.fixture
async def written() -> Written:
    bus = MemoryBus(MemoryServer())
    await streams.apply_workspace(bus, "main")
    return Written(bus)


@pytest.mark.parametrize(
    "pieces", [("x" * 999 + "\n",), ("x" * 600, "x" * 399 + "\n")], ids=["whole", "torn"]
)
async def test_every_line_is_there_or_said_to_be_dropped_when_there_is_room_again(
    written: Written, pieces: tuple[str, ...]
) -> None:
    lines = BUDGET // 500
    written.bus.disconnect()
    for _ in range(lines):
        for piece in pieces:
            written.log.write(STDOUT, piece, 0.0, "in-0")
    written.log.flush()
    written.bus.reconnect()

    async def gap() -> re.Match[str] | None:
        return re.search(r"\[(\d+) lines dropped\]\n$", await written.text())

    told = await until(gap)
    kept = (await written.text()).count("\n") - 1
    assert kept > lines // 4
    assert kept + int(told[1]) == lines


async def test_a_piece_of_a_line_that_is_dropped_is_told_too(written: Written) -> None:
    written.bus.disconnect()
    written.log.write(STDOUT, "x" * 2 * BUDGET, 0.0, "in-0")
    written.bus.reconnect()

    async def is_told() -> bool:
        return (await written.text()).endswith("[1 lines dropped]\n")

    await until(is_told)
