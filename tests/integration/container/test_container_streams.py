"""Generators: pieces in order, credit, endings."""

import pytest
from container_harness import Container, Start, eventually

from tidemill import exception
from tidemill._container import credit
from tidemill._container.frames import FromRunner, ToRunner
from tidemill._wire.messages import Status

KINDS = ["", "async "]


def stream(start: Start, source: str, **fields: object) -> Container:
    return start(source, is_generator=True, **fields)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_come_in_order_and_the_end_says_how_many(start: Start, kind: str) -> None:
    container = stream(start, f"{kind}def f(n):\n    for i in range(n): yield i")
    chunk = container.give([(500,)])
    assert container.output(chunk) == (Status.DONE, 500)
    assert container.pieces(chunk) == list(range(500))


@pytest.mark.parametrize("kind", KINDS)
def test_a_burst_of_pieces_shares_frames(start: Start, kind: str) -> None:
    container = stream(start, f"{kind}def f(n):\n    for i in range(n): yield i")
    container.output(container.give([(1000,)]))
    assert len(container.frames.of(FromRunner.PIECES)) < 900


@pytest.mark.parametrize(
    "source",
    [
        "def f(n): return (i for i in range(n))",
        "def f(n): return range(n)",
        "async def f(n): return iter(range(n))",
        "async def g(n):\n    for i in range(n): yield i\nasync def f(n): return g(n)",
        "async def g(n):\n    for i in range(n): yield i\ndef f(n): return g(n)",
    ],
    ids=["generator", "iterable", "async, iterator", "async, async generator", "async generator"],
)
def test_a_function_may_return_what_it_streams(start: Start, source: str) -> None:
    container = stream(start, source)
    chunk = container.give([(3,)])
    assert container.output(chunk) == (Status.DONE, 3)
    assert container.pieces(chunk) == [0, 1, 2]
    collected = container.give([(2,), (3,)], collect=True)
    assert container.output(collected, 0) == (Status.SUCCESS, [0, 1])
    assert container.output(collected, 1) == (Status.SUCCESS, [0, 1, 2])
    assert container.pieces(collected) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_whose_values_are_collected_fails_as_a_whole(start: Start, kind: str) -> None:
    container = stream(start, f"{kind}def f(n):\n    yield 1\n    yield 1 // n")
    with pytest.raises(ZeroDivisionError):
        container.result(container.give([(0,)], collect=True))
    assert container.output(container.give([(1,)], collect=True)) == (Status.SUCCESS, [1, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_stream_sends_each_piece_at_once(start: Start, kind: str) -> None:
    container = stream(
        start,
        f"""
        import os, time
        {kind}def f(gate):
            yield "first"
            while not os.path.exists(gate):
                time.sleep(0.001)
        """,
    )
    chunk = container.give([("/nowhere/at/all",)])
    container.frames.wait(lambda _frames: container.pieces(chunk) == ["first"])


@pytest.mark.parametrize("kind", KINDS)
def test_without_credit_a_generator_waits_and_with_credit_it_goes_on(start: Start, kind: str) -> None:
    container = stream(start, f"{kind}def f(n):\n    for i in range(n): yield i")
    chunk = container.give([(2000,)])
    container.frames.wait(lambda _frames: len(container.pieces(chunk)) == credit.WINDOW_PIECES)
    container.send(ToRunner.CREDIT, chunk, 0, 1500, 1 << 30)
    container.frames.wait(lambda _frames: len(container.pieces(chunk)) == 1500)
    container.send(ToRunner.CREDIT, chunk, 0, 1200, 0)  # late: it takes nothing back
    container.send(ToRunner.CREDIT, chunk, 0, 5000, 1 << 30)
    assert container.output(chunk) == (Status.DONE, 2000)
    assert container.pieces(chunk) == list(range(2000))


@pytest.mark.parametrize("kind", KINDS)
def test_large_pieces_stop_at_the_window_of_bytes(start: Start, kind: str) -> None:
    container = stream(start, f"{kind}def f():\n    for i in range(30): yield bytes(1 << 20)")
    chunk = container.give([()])
    container.frames.wait(lambda _frames: len(container.pieces(chunk)) == 16)
    container.send(ToRunner.CREDIT, chunk, 0, 1 << 20, 1 << 30)
    assert container.output(chunk) == (Status.DONE, 30)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_comes_after_the_pieces_before_it(start: Start, kind: str) -> None:
    container = stream(start, f"{kind}def f():\n    yield 1\n    yield 2\n    raise LookupError('gone')")
    chunk = container.give([()])
    status, error = container.output(chunk)
    assert (status, type(error)) == (Status.FAILURE, LookupError)
    assert container.pieces(chunk) == [1, 2]
    next_chunk = container.give([()])
    container.output(next_chunk)
    assert container.pieces(next_chunk) == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_generator_that_waits_for_credit_runs_its_finally(start: Start, kind: str) -> None:
    container = stream(
        start,
        f"""
        {kind}def f(n):
            try:
                for i in range(n): yield i
            finally:
                print("closed", flush=True)
        """,
    )
    chunk = container.give([(5000,)])
    container.frames.wait(lambda _frames: len(container.pieces(chunk)) == credit.WINDOW_PIECES)
    container.send(ToRunner.CANCEL, chunk, 0)
    assert container.output(chunk)[0] == Status.CANCELLED
    assert "".join(container.logged().values()) == "closed\n"
    again = container.give([(3,)])
    assert container.output(again) == (Status.DONE, 3)


def test_a_piece_that_cannot_be_sent_fails_the_stream(start: Start) -> None:
    container = stream(start, "import threading\ndef f():\n    yield 1\n    yield threading.Lock()")
    chunk = container.give([()])
    status, error = container.output(chunk)
    assert status == Status.FAILURE
    assert isinstance(error, exception.SerializationError)
    assert container.pieces(chunk) == [1]


def test_what_cannot_be_iterated_is_a_failure(start: Start) -> None:
    container = stream(start, "def f(): return 1")
    status, error = container.output(container.give([()]))
    assert (status, type(error)) == (Status.FAILURE, TypeError)


def test_a_stream_that_nobody_reads_ends_with_an_error(start: Start) -> None:
    container = stream(
        start,
        """
        import tidemill._container.credit, tidemill._container.execution
        tidemill._container.execution.PATIENCE = 0.05
        def f():
            for i in range(5000): yield i
        """,
    )
    status, error = container.output(container.give([()]))
    assert status == Status.FAILURE
    assert isinstance(error, exception.TimeoutError)
    assert eventually(lambda: container.logged(2))
