"""The caller's side against a real broker, with a worker that the test plays."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import PATIENCE, wait_until

sys.path.insert(0, str(Path(__file__).parent))

from played_worker import PlayedWorker

from tidemill import _client, _loop
from tidemill_local.broker import MEMBER, Broker


@pytest.fixture
def connected(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker that the SDK finds by itself; everything of the SDK is closed at the end."""
    monkeypatch.setenv("TIDEMILL_SERVER_URL", broker.url)
    monkeypatch.setenv("TIDEMILL_TOKEN_ID", MEMBER)
    monkeypatch.setenv("TIDEMILL_TOKEN_SECRET", broker.settings.passwords[MEMBER])
    yield broker
    _loop.close()
    wait_until(
        lambda: not [thread for thread in threading.enumerate() if thread.name == "tidemill-loop"],
        what="for the loop to end",
    )


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

    def __call__(self) -> None:
        caller = _client.current().caller
        self._broker.kill()
        wait_until(lambda: caller is None or not caller.bus._connected, what="for the client to notice")
        asyncio.run(self._broker.start())


@pytest.fixture
def eventually() -> "Callable[[Callable[[], object]], None]":
    """Block until a condition holds, for a bounded time."""

    def eventually(condition: "Callable[[], object]", bound: float = PATIENCE) -> None:
        wait_until(condition, bound)

    return eventually
