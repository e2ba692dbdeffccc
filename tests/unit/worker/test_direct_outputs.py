"""Outputs reach their caller, or are stored: they are never only on their way."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from waiting import until

from tidemill._bus.protocol import Message
from tidemill._wire import ids, subjects
from tidemill._wire.messages import Chunk, Payload
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_worker import direct
from tidemill_worker.direct import Direct, OutputMessage
from tidemill_worker.work import Work

WORKER = ids.new(ids.WORKER)
REPLY = subjects.replies("main", ids.new(ids.CALLER))
POOL: Any = SimpleNamespace(workspace="main", id="po-1")


def outputs(data: bytes = b"outputs") -> OutputMessage:
    chunk = Chunk.first(ids.new(ids.CALL), [0], [Payload(1, b"")], reply=REPLY)
    return OutputMessage(Work(cast(Any, None), POOL, chunk, 0.0), REPLY, data, "id")


class Stage:
    """What one worker sends, and what its caller hears."""

    def __init__(self) -> None:
        server = MemoryServer()
        self.bus, self.caller = MemoryBus(server), MemoryBus(server)
        self.heard: list[bytes] = []
        self.taken: list[OutputMessage] = []
        self.stored: list[OutputMessage] = []
        node: Any = SimpleNamespace(id=WORKER, bus=self.bus)
        self.direct = Direct(node, self.taken.append, self.stored.append)

    async def listen(self) -> None:
        def arrive(message: Message) -> None:
            self.heard.append(message.data)

        await self.caller.subscribe(subjects.outputs(REPLY), arrive)
        await self.direct.listen()

    def take(self, *numbers: int, workspace: str = "main") -> None:
        self.tell(msgspec.msgpack.encode(numbers), workspace)

    def tell(self, said: bytes, workspace: str = "main") -> None:
        self.caller.publish(subjects.taken(workspace, WORKER), said)


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.listen()
    return made


async def test_what_its_caller_has_is_neither_sent_again_nor_stored(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "PATIENCE", 0.01)
    one, other = outputs(b"one"), outputs(b"other")
    stage.direct.send(1, one)
    stage.take(1)
    await until(lambda: stage.taken)
    stage.direct.send(2, other)
    await until(lambda: stage.stored)
    assert (stage.taken, stage.stored) == ([one], [other])
    assert stage.heard == [b"one", *[b"other"] * direct.TRIES]
    assert not stage.direct._bytes


async def test_only_who_is_of_its_workspace_can_say_to_have_an_output(stage: Stage) -> None:
    one, other = outputs(b"one"), outputs(b"other")
    stage.direct.send(1, one)
    stage.direct.send(2, other)
    stage.take(1, workspace="another")
    stage.tell(b"no list of numbers")
    stage.take(2, 3)
    stage.take(2)
    await until(lambda: stage.taken)
    stage.take(1)
    await until(lambda: len(stage.taken) == 2)
    assert stage.taken == [other, one]


async def test_a_lost_connection_loses_no_output(stage: Stage) -> None:
    stage.bus.disconnect()
    stage.direct.send(1, outputs())
    await asyncio.sleep(0)
    assert not stage.heard
    stage.bus.reconnect()
    await until(lambda: stage.heard)
    assert stage.heard[0] == b"outputs"


async def test_what_is_beyond_the_budget_is_stored_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "BUDGET", 1_000)
    large, beyond = outputs(bytes(900)), outputs(bytes(901))
    stage.direct.send(1, large)
    stage.direct.send(2, beyond)
    assert stage.stored == [beyond]
    stage.take(1)
    await until(lambda: stage.taken)
    stage.direct.send(3, large)
    assert stage.stored == [beyond]


async def test_a_worker_that_ends_stores_what_nobody_has_said_to_have(stage: Stage) -> None:
    one, other, late = outputs(b"one"), outputs(b"other"), outputs(b"late")
    stage.direct.send(1, one)
    stage.direct.send(2, other)
    stage.take(1)
    await until(lambda: stage.taken)
    stage.direct.hurry()
    stage.direct.send(3, late)
    assert (stage.taken, stage.stored) == ([one], [other, late])
