"""Real servers and real services for every integration test: each test has its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import waiting

from tidemill_local.broker import Broker, BrokerSettings
from tidemill_local.database import Database

START_TIMEOUT = 60.0  # seconds
END_TIMEOUT = 60.0


class Running:
    """A service in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], ready: int, log: Path) -> None:
        self.process = process
        self.log = log
        self._ready: int | None = ready
        self.address = ""

    async def serving(self) -> dict[str, Any]:
        """Return what the service announces when it serves."""
        line = await asyncio.wait_for(asyncio.to_thread(self._line), START_TIMEOUT)
        assert line, f"the service ended before it served:\n{self.log.read_text()}"
        told: dict[str, Any] = json.loads(line)
        self.address = told["address"]
        return told

    def _line(self) -> bytes:
        assert self._ready is not None
        with os.fdopen(self._ready, "rb") as pipe:
            self._ready = None
            return pipe.readline()

    def close(self) -> None:
        """End it, whatever state it is in."""
        self.process.kill()
        self.process.wait(END_TIMEOUT)
        if self._ready is not None:
            os.close(self._ready)

    async def ended(self) -> int:
        """Return the exit status."""
        return await asyncio.to_thread(self.process.wait, END_TIMEOUT)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        self.process.kill()
        await self.ended()

    def records(self) -> list[dict[str, Any]]:
        """Return what it logged so far."""
        whole = self.log.read_text().rpartition("\n")[0]  # the last line may only be half written
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    async def get(self, path: str, address: str = "") -> tuple[int, str]:
        """Return status and body of a GET."""
        host, port = (address or self.address).split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split(" ")[1]), body


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder with a short name: sockets live in it."""
    # A killed PostgreSQL's own processes notice that a moment later, and write into it until then.
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Broker]:
    broker = Broker(BrokerSettings(folder / "nats"))
    await broker.start()
    yield broker
    broker.kill()


@pytest.fixture
async def database(folder: Path) -> AsyncIterator[Database]:
    database = Database(folder / "postgres", durable=False)
    await database.start()
    yield database
    database.kill()


class Launcher:
    """Starts programs as services that find one NATS server; ends all of them."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self._folder = folder
        self._broker = broker
        self._running: list[Running] = []

    def __call__(self, *arguments: str, **environment: str) -> Running:
        reader, writer = os.pipe()
        log = self._folder / f"service-{len(self._running)}.log"
        settings = {
            "TIDEMILL_NATS_URL": self._broker.url,
            "TIDEMILL_NATS_USER": "service",
            "TIDEMILL_NATS_PASSWORD": self._broker.settings.passwords["service"],
            "TIDEMILL_LOG_FORMAT": "json",
            "TIDEMILL_READY_FD": str(writer),
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **settings, **environment},
                stdout=out,
                stderr=out,
                pass_fds=(writer,),
            )
        os.close(writer)
        self._running.append(Running(process, reader, log))
        return self._running[-1]

    def close(self) -> None:
        for service in self._running:
            service.close()


@pytest.fixture(scope="session")
def launcher() -> type[Launcher]:
    """What starts programs, for servers that are not of one test."""
    return Launcher


@pytest.fixture
def launch(folder: Path, broker: Broker) -> Iterator[Launcher]:
    """Start a program as a service that finds its NATS; all are killed at the end."""
    launch = Launcher(folder, broker)
    yield launch
    launch.close()


Until = Callable[[Callable[[], Any]], Awaitable[Any]]


@pytest.fixture
def until() -> Until:
    """Wait until a condition (a function, async or not) holds; return what it returned."""

    return waiting.until
