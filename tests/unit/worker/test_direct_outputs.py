"""A response reaches its gateway, or is stored: it is never only on its way."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from waiting import until

from tidemill._bus.protocol import Message
from tidemill._wire import ids, subjects
from tidemill._wire.messages import Chunk, Format, Payload
from tidemill._wire.web import ANSWER
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_worker import web_answers
from tidemill_worker.web_answers import Answers
from tidemill_worker.work import Work

WORKER, GATEWAY = ids.new(ids.WORKER), ids.new(ids.GATEWAY)
POOL: Any = SimpleNamespace(workspace="main", id="po-1")


def request() -> Work:
    chunk = Chunk(ids.new(ids.CALL), [0], 0, "r", [Payload(Format.HTTP, b"")], 1.0, gateway=GATEWAY)
    return Work(cast(Any, None), POOL, chunk, 0.0)


class Stage:
    """The responses of a worker, and what their gateway hears."""

    def __init__(self) -> None:
        server = MemoryServer()
        self.bus, self.gateway = MemoryBus(server), MemoryBus(server)
        self.heard: list[list[Any]] = []
        self.settled: list[Work] = []
        self.stored: list[str] = []
        node: Any = SimpleNamespace(id=WORKER, bus=self.bus, web=SimpleNamespace())
        self.answers = Answers(node, self.settled.append)

    async def listen(self) -> None:
        def arrive(message: Message) -> None:
            self.heard.append(msgspec.msgpack.decode(message.data))

        await self.gateway.subscribe(subjects.stream("main", GATEWAY, down=True), arrive)

    def send(self, work: Work, response: bytes = b"response") -> bool:
        return self.answers.send(work, response, lambda: self.stored.append(work.chunk.call))


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.listen()
    return made


async def test_work_is_settled_when_its_response_was_taken(stage: Stage) -> None:
    one, other = request(), request()
    assert stage.send(one)
    assert stage.send(other)
    await until(lambda: len(stage.heard) == 2)
    assert stage.heard[0] == [one.chunk.call, [ANSWER, WORKER, b"response"]]
    assert (one.stores, stage.settled) == (1, [])
    stage.answers.taken("main", [one.chunk.call, "fc-unknown"])
    stage.answers.taken("another", [other.chunk.call])
    stage.answers.taken("main", [one.chunk.call])
    assert (one.stores, other.stores, stage.settled) == (0, 1, [one])


async def test_a_response_that_nobody_takes_is_sent_again_and_then_stored(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_answers, "PATIENCE", 0.01)
    work = request()
    assert stage.send(work)
    await until(lambda: stage.stored)
    assert stage.stored == [work.chunk.call]
    assert (work.stores, stage.settled) == (0, [])  # who stores it settles it
    assert len(stage.heard) == web_answers.TRIES
    assert stage.answers._bytes == 0
    assert stage.send(work)


async def test_a_lost_connection_loses_no_response(stage: Stage) -> None:
    work = request()
    stage.bus.disconnect()
    assert stage.send(work)
    await asyncio.sleep(0)
    assert not stage.heard
    stage.bus.reconnect()
    await until(lambda: stage.heard)
    assert stage.heard[0][0] == work.chunk.call


async def test_what_is_beyond_the_budget_or_comes_twice_is_stored_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_answers, "BUDGET", 1_000)
    work = request()
    assert stage.send(work, bytes(900))
    assert not stage.send(request(), bytes(900))
    assert not stage.send(work, b"")
    stage.answers.taken("main", [work.chunk.call])
    assert stage.send(request(), bytes(900))
