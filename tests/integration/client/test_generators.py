"""`remote_gen`: pieces in order, errors after them, credit, closing."""

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from played_worker import Lost, Pause, PlayedWorker
from waiting import until

from tidemill import _client, exception
from tidemill._wire.payload import INLINE_LIMIT
from tidemill_local.broker import Broker


def count(n: int) -> Iterator[int]:
    yield from range(n)


def test_pieces_come_in_order(worker: PlayedWorker) -> None:
    f = worker.function(count)
    assert list(f.remote_gen(5)) == [0, 1, 2, 3, 4]
    assert list(f.remote_gen(0)) == []


async def test_pieces_can_be_awaited(worker: PlayedWorker) -> None:
    f = worker.function(count)
    assert [piece async for piece in f.remote_gen.aio(5)] == [0, 1, 2, 3, 4]


def test_pieces_come_while_the_generator_still_runs(worker: PlayedWorker) -> None:
    pool = worker.deploy(_waits_in_the_middle)
    f = worker.caller_of(pool)
    pieces = f.remote_gen()
    assert next(pieces) == "first"
    pieces.close()


def _waits_in_the_middle() -> Iterator[Any]:
    yield "first"
    yield Pause(25.0)
    yield "second"


def test_a_failure_comes_after_the_pieces_before_it(worker: PlayedWorker) -> None:
    def breaks() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no more")

    pieces = worker.function(breaks).remote_gen()
    assert [next(pieces), next(pieces)] == [1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(pieces)


def test_large_pieces_keep_their_order(worker: PlayedWorker) -> None:
    def mixed() -> Iterator[bytes]:
        for number in range(8):
            yield bytes([number]) * (large if number % 2 else 10)

    large = INLINE_LIMIT + 1
    pieces = list(worker.function(mixed).remote_gen())
    assert [(piece[0], len(piece)) for piece in pieces] == [(n, large if n % 2 else 10) for n in range(8)]


def test_a_stream_beyond_the_first_window_goes_on_with_credit(worker: PlayedWorker) -> None:
    f = worker.function(count)
    assert sum(f.remote_gen(4_000)) == sum(range(4_000))
    assert worker.credits


def test_a_reader_that_does_not_read_stops_the_sender(worker: PlayedWorker, eventually: Any) -> None:
    sent: list[int] = []

    def endless() -> Iterator[int]:
        for number in range(1_000_000):
            sent.append(number)
            yield number

    pieces = worker.function(endless).remote_gen()
    assert next(pieces) == 0
    eventually(lambda: len(sent) > 1_000)
    assert len(sent) <= 1_024 + 1_024 + 1
    pieces.close()


def test_closing_the_iteration_cancels_the_generator(worker: PlayedWorker, eventually: Any) -> None:
    pieces = worker.function(_waits_in_the_middle).remote_gen()
    next(pieces)
    pieces.close()
    eventually(lambda: worker.cancelled)


async def test_leaving_an_awaited_iteration_cancels_the_generator(worker: PlayedWorker) -> None:
    pieces = worker.function(_waits_in_the_middle).remote_gen.aio()
    assert await anext(pieces) == "first"
    await pieces.aclose()
    await until(lambda: worker.cancelled)


def test_a_large_argument_reaches_the_generator(worker: PlayedWorker) -> None:
    def halves(data: bytes) -> Iterator[bytes]:
        yield data[: len(data) // 2]
        yield data[len(data) // 2 :]

    data = os.urandom(2 * INLINE_LIMIT)
    assert b"".join(worker.function(halves).remote_gen(data)) == data


def test_a_missing_piece_is_given_up_when_the_stream_was_read_and_not_before(
    worker: PlayedWorker, connected: Broker, eventually: Any
) -> None:
    def loses_one() -> Iterator[Any]:
        yield "first"
        yield Lost()
        yield "third"
        yield Pause(60.0)

    pieces = worker.function(loses_one).remote_gen()
    assert next(pieces) == "first"
    caller = _client.current().caller
    assert caller is not None
    (call,) = caller.calls.values()
    eventually(lambda: call._gap_since)
    connected.kill()
    eventually(lambda: not caller.bus._connected)

    async def look_much_later() -> None:
        call.on_tick(time.monotonic() + 100)

    asyncio.run_coroutine_threadsafe(look_much_later(), caller.loop).result(60)
    assert not call._ended
    asyncio.run(connected.start())
    call._gap_since -= 100
    with pytest.raises(exception.DataLossError, match="piece 1 of the stream is missing"):
        next(pieces)
