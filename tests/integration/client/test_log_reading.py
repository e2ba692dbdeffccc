"""Output is read from a real stream: the end of it without the rest, and on and on without a gap."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any

import pytest
from waiting import until

from tidemill import exception
from tidemill._log_entries import LogEntry, Selection
from tidemill._log_reading import LogReader
from tidemill._output import Output
from tidemill._watching import Watch
from tidemill._wire import coding, ids, subjects
from tidemill._wire.messages import LogRecord
from tidemill_common import streams
from tidemill_common.bus.nats import NatsServiceBus, connect
from tidemill_local.broker import Broker

BOUND = 60.0


class CountingBus(NatsServiceBus):
    """Counts what is read of streams."""

    read_messages = 0

    async def read(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        async for stored in super().read(*args, **kwargs):
            self.read_messages += 1
            yield stored


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[CountingBus]:
    bus = CountingBus()
    await bus.open(broker.url, "service", broker.settings.passwords["service"], name="test", timeout=30.0)
    await streams.apply_workspace(bus, WORKSPACE)
    yield bus
    await bus.close()


APP, WORKSPACE = ids.new(ids.APP), "main"
_count = itertools.count()


async def print_lines(
    bus: NatsServiceBus, *numbers: int, app: str = APP, container: str = "co-1", **fields: Any
) -> None:
    """Publish a message with a line for each number."""
    made = {"stream": 1, "time": time.time(), "input": "in-1-0", "function": "f", **fields}
    records = [LogRecord(text=f"line {number}\n", container=container, **made) for number in numbers]
    key = f"{container}.{next(_count)}"
    await bus.store(subjects.logs(WORKSPACE, app, "po-1", container), coding.encode(records), msg_id=key)


def reader(bus: NatsServiceBus, **selection: Any) -> LogReader:
    mine = Selection(subjects.app_logs(WORKSPACE, APP), app=APP, **selection)
    return LogReader(bus, subjects.logs_stream(WORKSPACE), mine, {})


def numbers(entries: list[LogEntry]) -> list[int]:
    return [int(entry.message.split()[1]) for entry in entries]


async def test_the_last_lines_are_found_without_reading_the_rest(bus: CountingBus) -> None:
    for start in range(0, 4_000, 4):
        await print_lines(bus, *range(start, start + 4))
    mine = reader(bus)
    bus.read_messages = 0
    assert numbers(await mine.tail(100, await mine.last())) == list(range(3_900, 4_000))
    assert bus.read_messages < 200
    assert numbers(await mine.tail(10_000, await mine.last())) == list(range(4_000))


async def test_the_last_lines_are_found_between_those_of_others(bus: CountingBus) -> None:
    await print_lines(bus, 1, 2)
    for number in range(300):
        await print_lines(bus, number, app="ap-other")
    await print_lines(bus, 3, input="in-2-0", stream=2)
    mine = reader(bus)
    assert numbers(await mine.tail(100, await mine.last())) == [1, 2, 3]
    assert numbers(await reader(bus, source="stderr").tail(5, 1 << 40)) == [3]
    assert numbers(await reader(bus, call="fc-1").tail(1, 1 << 40)) == [2]
    assert await reader(bus, search="nothing").tail(1, 1 << 40) == []


async def test_a_range_of_time_is_read_from_its_beginning(bus: CountingBus) -> None:
    now = time.time()
    for number in range(10):
        await print_lines(bus, number, time=now + number)

    async def fetch(limit: int, **selection: Any) -> list[int]:
        async with aclosing(reader(bus, **selection).fetch(limit)) as entries:
            return numbers([entry async for entry in entries])

    assert await fetch(100) == list(range(10))
    assert await fetch(3) == [0, 1, 2]
    assert await fetch(100, since=now + 4, until=now + 7) == [4, 5, 6]


async def test_following_misses_nothing_while_the_connection_is_away(
    bus: CountingBus, broker: Broker
) -> None:
    writer = await connect(broker.url, "service", broker.settings.passwords["service"], timeout=20)
    await print_lines(writer, 0)
    mine = reader(bus)
    after = await mine.last()
    got: list[int] = []
    over = False

    async def follow() -> None:
        async with aclosing(mine.follow(after, lambda: over)) as entries:
            async for entry in entries:
                got.extend(numbers([entry]))

    async def have(count: int) -> None:
        await until(lambda: len(got) >= count, BOUND)

    following = asyncio.create_task(follow())
    await print_lines(writer, 1, 2)
    await have(2)
    broker.kill()
    restarted = asyncio.create_task(broker.start())
    await restarted
    for number in range(3, 30):
        await print_lines(writer, number)
    await have(29)
    assert got == list(range(1, 30))
    over = True
    await asyncio.wait_for(following, BOUND)
    await writer.close()


class Shown(Output):
    """Keeps what is shown."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.texts: list[str] = []

    def logs(self, records: Iterable[LogRecord]) -> None:
        self.texts += [record.text for record in records]


async def test_a_watch_begins_where_it_is_told_to_whenever_it_comes_to_listen(bus: CountingBus) -> None:
    await print_lines(bus, 0)
    after = await reader(bus).last()
    await print_lines(bus, 1, 2)
    watch = Watch(bus, WORKSPACE, APP, shown := Shown())
    await watch.open(after=after)
    await print_lines(bus, 3)
    await until(lambda: len(shown.texts) >= 3)
    await watch.close()
    assert shown.texts == ["line 1\n", "line 2\n", "line 3\n"]


async def test_following_ends_with_the_connection(bus: CountingBus) -> None:
    await print_lines(bus, 1)
    async with aclosing(reader(bus).follow(0, lambda: False)) as entries:
        assert (await anext(entries)).message == "line 1\n"
        await bus.close()
        async with asyncio.timeout(BOUND):
            with pytest.raises(exception.ClientClosed):
                await anext(entries)
