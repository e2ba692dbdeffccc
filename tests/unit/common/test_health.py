"""Health answers, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry, Counter

from tidemill_common import health
from tidemill_common.health import Health, HealthServer

Ready = Callable[[], Awaitable[str | None]]


class Served:
    """A health server whose readiness a test decides."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.registry = CollectorRegistry()
        self.port = 0

    async def ready(self) -> str | None:
        await self.answers.wait()
        if self.error:
            raise self.error
        return self.reason

    async def send(self, request: bytes) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            return (await reader.read()).decode()
        except ConnectionError:  # closed before it had read everything
            return ""
        finally:
            writer.close()

    async def get(self, path: str, method: str = "GET") -> str:
        return await self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(health, "HEAD_TIMEOUT", 60.0)  # of a process that may be held up itself
    served = Served()
    server = HealthServer(Health(served.registry, served.ready))
    address = await server.start("127.0.0.1", 0)
    served.port = int(address.rpartition(":")[2])
    yield served
    await server.close()


async def test_a_process_is_alive_whatever_its_dependencies_do(served: Served) -> None:
    served.answers.clear()
    assert (await served.get("/healthz")).startswith("HTTP/1.1 200 ")


async def test_readiness_says_why_not(served: Served) -> None:
    assert (await served.get("/readyz")).startswith("HTTP/1.1 200 ")
    served.reason = "the database does not answer"
    answer = await served.get("/readyz?verbose")
    assert answer.startswith("HTTP/1.1 503 ")
    assert "the database does not answer" in answer


async def test_a_readiness_check_that_fails_or_hangs_means_not_ready(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.error = RuntimeError("odd")
    assert "odd" in await served.get("/readyz")
    monkeypatch.setattr(health, "READY_TIMEOUT", 0.01)
    served.answers.clear()
    assert (await served.get("/readyz")).startswith("HTTP/1.1 503 ")


async def test_metrics_come_as_prometheus_text(served: Served) -> None:
    Counter("things", "Things.", registry=served.registry).inc()
    answer = await served.get("/metrics")
    assert "text/plain; version=" in answer
    assert "things_total 1.0" in answer


async def test_only_reading_is_possible(served: Served) -> None:
    assert (await served.get("/healthz", "POST")).startswith("HTTP/1.1 405 ")
    assert (await served.get("/nowhere")).startswith("HTTP/1.1 404 ")
    head = await served.get("/healthz", "HEAD")
    assert head.startswith("HTTP/1.1 200 ")
    assert head.endswith("\r\n\r\n")


@pytest.mark.parametrize("nonsense", [b"hello\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/1.1 x\r\n\r\n"])
async def test_nonsense_is_refused(served: Served, nonsense: bytes) -> None:
    assert (await served.send(nonsense)).startswith("HTTP/1.1 400 ")


async def test_an_endless_head_ends_the_connection(served: Served) -> None:
    assert await served.send(b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * health.HEAD_LIMIT)) == ""
    assert "200" in await served.get("/healthz")


async def test_a_silent_client_is_let_go(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "HEAD_TIMEOUT", 0.01)
    assert await served.send(b"GET") == ""


async def test_too_many_connections_are_closed_at_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "MAX_CONNECTIONS", 1)
    _, held = await asyncio.open_connection("127.0.0.1", served.port)
    held.write(b"GET")
    await held.drain()
    while await served.get("/healthz") != "":
        pass
    held.close()
