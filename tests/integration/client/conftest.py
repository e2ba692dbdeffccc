"""The caller's side against a real broker, with a worker that the test plays."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from played_worker import PlayedWorker

from tidemill import _loop
from tidemill_local.broker import MEMBER, Broker


@pytest.fixture
def connected(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker that the SDK finds by itself; everything of the SDK is closed at the end."""
    monkeypatch.setenv("TIDEMILL_SERVER_URL", broker.url)
    monkeypatch.setenv("TIDEMILL_TOKEN_ID", MEMBER)
    monkeypatch.setenv("TIDEMILL_TOKEN_SECRET", broker.settings.passwords[MEMBER])
    yield broker
    _loop.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "tidemill-loop"]


@pytest.fixture
def worker(connected: Broker) -> Iterator[PlayedWorker]:
    with PlayedWorker(connected) as worker:
        yield worker


@pytest.fixture
def restart(broker: Broker) -> "Restart":
    """Kill the server and start it again on the same port and store, from a test that blocks."""
    return Restart(broker)


class Restart:
    """Kills a broker and brings it back, from any thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def __call__(self, away: float = 0.0) -> None:
        async def restart() -> None:
            self._broker.kill()
            await asyncio.sleep(away)
            await self._broker.start()

        asyncio.run(restart())


@pytest.fixture
def eventually() -> "Callable[[Callable[[], object]], None]":
    """Block until a condition holds, for a bounded time."""

    def eventually(condition: "Callable[[], object]", bound: float = 20.0) -> None:
        deadline = time.monotonic() + bound
        while not condition():
            assert time.monotonic() < deadline, "the condition does not hold in time"
            time.sleep(0.01)

    return eventually
