"""What a slow or lost NATS has taken is told once; the rest stays."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tidemill._bus.protocol import Stored
from tidemill_common import streams
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_registry import telling

EVENT = "tm.events.main.app.ap-1"
EVENTS = next(spec for spec in streams.workspace_streams("main") if "tm.events.main.>" in spec.subjects)


def row(number: int, kind: str = "put", key: str = "", body: bytes = b"") -> Any:
    target = streams.POOLS if kind in ("put", "delete") else EVENT
    made = datetime(2026, 1, 1, tzinfo=UTC)
    return SimpleNamespace(
        id=number, kind=kind, target=target, key=key, body=body, headers={}, created_at=made
    )


def refused(*_: Any) -> None:
    raise AssertionError


@pytest.fixture
async def bus() -> MemoryBus:
    bus = MemoryServer().connect()
    await bus.ensure_bucket(streams.POOLS)
    await bus.ensure_stream(EVENTS)
    return bus


@pytest.fixture
def taken(bus: MemoryBus) -> list[str]:
    """Return the subjects of what is stored, as it is stored."""
    subjects: list[str] = []
    bus._server.watchers.add(lambda stored: subjects.append(stored.subject))
    return subjects


async def tell(bus: MemoryBus, rows: list[Any]) -> tuple[list[int], Exception | None]:
    return await telling.tell(bus, rows, refused)


async def test_models_come_before_events_and_only_the_last_of_each_is_told(
    bus: MemoryBus, taken: list[str]
) -> None:
    rows = [row(1, key="a", body=b"1"), row(2, "event"), row(3, key="b"), row(4, key="a", body=b"4")]
    assert await tell(bus, rows) == ([1, 2, 3, 4], None)
    assert taken[-1] == EVENT
    assert len(taken) == 3
    assert await bus.bucket(streams.POOLS).get("a") == b"4"


async def test_what_a_lost_nats_has_taken_is_not_told_again(
    bus: MemoryBus, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "TELL", 0.05)
    bus._server.watchers.add(_after(25, bus.disconnect))
    rows = [*(row(number, key=f"po-{number}") for number in range(60)), row(60, "event")]
    told, problem = await tell(bus, rows)
    assert told == list(range(25))
    assert isinstance(problem, TimeoutError)
    bus.reconnect()
    assert await tell(bus, rows[25:]) == (list(range(25, 61)), None)
    assert len(taken) == 61


def _after(number: int, happen: Callable[[], None]) -> Callable[[Stored], None]:
    numbers = itertools.count(1)
    return lambda _: happen() if next(numbers) == number else None
