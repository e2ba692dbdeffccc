"""`remote_gen`: pieces in order, errors after them, credit, closing."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from played_worker import Pause, PlayedWorker
from waiting import until

from tidemill._wire.payload import INLINE_LIMIT


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
