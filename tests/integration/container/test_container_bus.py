"""The bus inside a container, over the frames that the worker answers."""

from typing import Any

import pytest
from container_harness import Container, Start

from tidemill._bus.protocol import (
    AlreadyHeld,
    BusError,
    Closed,
    Disconnected,
    NotLetIn,
    Refused,
    RequestFailed,
    StreamFull,
)
from tidemill._bus.socket import from_error, to_error
from tidemill._container.frames import FromRunner, ToRunner

# A function with a loop in another thread, as the SDK has one: the main thread is in the user's code.
PREAMBLE = """
import asyncio, threading
from tidemill import _runtime
from tidemill._bus.protocol import BusError
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
def on_loop(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)
"""


def asked(container: Container, operation: str, count: int = 1) -> list[Any]:
    """Return number and arguments of the newest of `count` requests for an operation."""

    def find(frames: list[list[Any]]) -> list[list[Any]]:
        found = [frame for frame in frames if frame[0] == FromRunner.ASK and frame[2] == operation]
        return found if len(found) >= count else []

    frame = container.frames.wait(find)[-1]
    return [frame[1], *frame[3]]


def answer(container: Container, number: int, value: Any, *, ok: bool = True) -> None:
    container.send(ToRunner.ANSWER, number, ok, value)


def test_a_request_is_answered_while_user_code_runs(start: Start) -> None:
    container = start(
        PREAMBLE
        + """
async def ask():
    return await _runtime.container.bus.request("tm.registry.x", b"question", timeout=7)
def f(): return on_loop(ask())
"""
    )
    chunk = container.give([()])
    number, subject, data, timeout, headers = asked(container, "request")
    assert (subject, data, timeout, headers) == ("tm.registry.x", b"question", 7, None)
    answer(container, number, b"answer")
    assert container.result(chunk) == b"answer"


def test_an_async_function_that_blocks_its_loop_is_still_answered(start: Start) -> None:
    container = start(
        PREAMBLE
        + """
async def ask():
    return await _runtime.container.bus.request("tm.registry.x", b"")
async def f(): return on_loop(ask())
"""
    )
    chunk = container.give([()])
    answer(container, asked(container, "request")[0], b"answer")
    assert container.result(chunk) == b"answer"


def test_stores_are_pipelined_and_their_errors_keep_their_type(start: Start) -> None:
    container = start(
        PREAMBLE
        + """
async def ask():
    bus = _runtime.container.bus
    futures = [bus.store("tm.inputs.x", b"%d" % i, msg_id=str(i)) for i in range(3)]
    return [type(r).__name__ if isinstance(r, BusError) else tuple(r)
            for r in await asyncio.gather(*futures, return_exceptions=True)]
def f(): return on_loop(ask())
"""
    )
    chunk = container.give([()])
    last, subject, data, msg_id, _headers = asked(container, "store", 3)
    assert (subject, data, msg_id) == ("tm.inputs.x", b"2", "2")
    answer(container, last, from_error(AlreadyHeld("x")), ok=False)
    answer(container, last - 2, ["INPUTS_cpu_0", 17, False])
    answer(container, last - 1, from_error(StreamFull("x")), ok=False)
    assert container.result(chunk) == [("INPUTS_cpu_0", 17, False), "StreamFull", "AlreadyHeld"]


def test_subscriptions_deliver_in_order_until_they_are_closed(start: Start) -> None:
    container = start(
        PREAMBLE
        + """
got = []
async def listen():
    bus = _runtime.container.bus
    done = asyncio.Event()
    def on_message(message):
        got.append((message.subject, message.data, dict(message.headers)))
        if message.data == b"99":
            done.set()
    subscription = await bus.subscribe("tm.replies.x", on_message)
    await done.wait()
    await subscription.close()
def f():
    on_loop(listen())
    return got
"""
    )
    chunk = container.give([()])
    number, subscription, subject, queue = asked(container, "subscribe")
    assert (subject, queue) == ("tm.replies.x", "")
    answer(container, number, None)
    for i in range(100):
        container.send(ToRunner.DELIVER, subscription, "tm.replies.x", b"%d" % i, "", {"n": str(i)})
    assert asked(container, "unsubscribe") == [0, subscription]
    assert container.result(chunk) == [("tm.replies.x", b"%d" % i, {"n": str(i)}) for i in range(100)]


def test_a_stream_is_read_batch_by_batch(start: Start) -> None:
    container = start(
        PREAMBLE
        + """
async def read():
    bus = _runtime.container.bus
    return [(m.sequence, m.data) async for m in bus.read("REPLIES", "tm.replies.x", since=5.0)]
def f(): return on_loop(read())
"""
    )
    chunk = container.give([()])
    number, stream, subject, since, sequence = asked(container, "read")
    assert (stream, subject, since, sequence) == ("REPLIES", "tm.replies.x", 5.0, 1)
    answer(container, number, [[["tm.replies.x", b"a", 3, 5.5, None]], 4])
    number, _, _, since, sequence = asked(container, "read", 2)
    assert (since, sequence) == (None, 4)
    answer(container, number, [[["tm.replies.x", b"b", 4, 5.6, None]], None])
    assert container.result(chunk) == [(3, b"a"), (4, b"b")]


def test_the_other_operations_ask_and_return(start: Start) -> None:
    container = start(
        PREAMBLE
        + """
async def all_of_them():
    bus = _runtime.container.bus
    bus.publish("tm.demand.x", b"", headers={"a": "b"})
    await bus.flush()
    return await bus.purge("REPLIES", "tm.replies.x", below=9), await bus.last("RESULTS", "tm.results.x.0")
def f(): return on_loop(all_of_them())
"""
    )
    chunk = container.give([()])
    answer(container, asked(container, "flush")[0], None)
    assert asked(container, "publish") == [0, "tm.demand.x", b"", "", {"a": "b"}]
    number, *arguments = asked(container, "purge")
    assert arguments == ["REPLIES", "tm.replies.x", 9]
    answer(container, number, 12)
    answer(container, asked(container, "last")[0], None)
    assert container.result(chunk) == (12, None)


def test_a_reconnect_of_the_worker_is_told(start: Start) -> None:
    container = start(
        PREAMBLE
        + """
async def wait():
    bus, told, done = _runtime.container.bus, [], asyncio.Event()
    bus.on_disconnect(lambda: told.append("lost"))
    undo = bus.on_reconnect(lambda: told.append("never"))
    undo()
    bus.on_reconnect(lambda: (told.append("back"), done.set()))
    bus.publish("ready", b"")
    await done.wait()
    return told
def f(): return on_loop(wait())
"""
    )
    chunk = container.give([()])
    asked(container, "publish")
    container.send(ToRunner.RECONNECTED)
    assert container.result(chunk) == ["lost", "back"]


def test_a_closed_bus_fails_what_waits_and_the_next_one_works(start: Start) -> None:
    container = start(
        PREAMBLE
        + """
async def close():
    bus = _runtime.container.bus
    waiting = asyncio.ensure_future(bus.request("tm.x", b""))
    await asyncio.sleep(0)
    await bus.close()
    failed = type((await asyncio.gather(waiting, return_exceptions=True))[0]).__name__
    again = _runtime.container.bus
    await again.flush()
    return failed, again is bus
def f(): return on_loop(close())
"""
    )
    chunk = container.give([()])
    answer(container, asked(container, "flush")[0], None)
    assert container.result(chunk) == ("Closed", False)


def test_a_message_above_the_limit_is_refused_before_it_is_sent(start: Start) -> None:
    container = start(
        PREAMBLE
        + """
async def store():
    try:
        await _runtime.container.bus.store("tm.x", bytes(1001))
    except BusError as error:
        return type(error).__name__
def f(): return on_loop(store())
""",
        max_payload=1000,
    )
    assert container.call() == "TooLarge"


def test_a_forked_child_has_no_bus(start: Start) -> None:
    container = start(
        """
        import os
        from tidemill import _runtime
        def f():
            read, write = os.pipe()
            if not os.fork():
                os.write(write, repr(_runtime.container.bus).encode())
                os._exit(0)
            return os.read(read, 100)
        """
    )
    assert container.call() == b"None"


@pytest.mark.parametrize(
    "error", [AlreadyHeld("held"), Refused(10_000, "no"), RequestFailed("invalid", "bad", "try this")]
)
def test_errors_survive_their_journey(error: BusError) -> None:
    copy = to_error(from_error(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_what_ends_the_workers_connection_is_a_lost_one_to_the_container() -> None:
    for error in (Closed("over"), NotLetIn("revoked", final=True)):
        assert type(to_error(from_error(error))) is Disconnected


def test_an_unknown_error_is_still_one_of_the_bus() -> None:
    assert type(to_error(["asyncio", "x"])) is BusError
