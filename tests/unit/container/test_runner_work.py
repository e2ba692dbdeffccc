"""What of a chunk has started, and what has not."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tidemill._container.configuration import Configuration
from tidemill._container.credit import WINDOW_BYTES, WINDOW_PIECES, Credit
from tidemill._container.frames import ToRunner
from tidemill._container.loading import runs_on_loop
from tidemill._container.work import NOTHING, Chunk


def chunk(indices: list[int]) -> Chunk:
    payloads = [(1, b"%d" % index) for index in indices]
    return Chunk([ToRunner.CHUNK, 5, "fc-x", indices, 0, payloads, "", "fc-root", False, ""])


def test_inputs_start_in_order_each_once() -> None:
    mine = chunk([3, 9])
    first, second = mine.start(), mine.start()
    assert first is not None
    assert second is not None
    assert (first.key, first.payload, first.now.root) == ((5, 3), (1, b"3"), "fc-root")
    assert (second.key, second.now.index, second.now.input_id) == ((5, 9), 9, "in-x-9")
    assert mine.start() is None


def test_what_follows_is_known() -> None:
    mine = chunk([3, 9])
    assert mine.following() == (5, 3)
    mine.recall()
    assert mine.following() is NOTHING


def test_what_is_taken_back_does_not_start() -> None:
    mine = chunk([0, 1, 2, 3])
    mine.start()
    assert mine.withdraw(2) is True
    assert mine.withdraw(2) is False
    assert mine.withdraw(0) is False, "it has started"
    assert mine.recall() == [1, 3]
    assert mine.start() is None


def test_a_call_without_a_root_is_its_own() -> None:
    frame = [ToRunner.CHUNK, 5, "fc-x", [0], 0, [(1, b"")], "", "", False, ""]
    started = Chunk(frame).start()
    assert started is not None
    assert started.now.root == "fc-x"


def test_credit_is_cumulative_and_never_taken_back() -> None:
    credit = Credit()
    for _ in range(WINDOW_PIECES):
        assert credit.is_open()
        credit.take(1)
    assert not credit.is_open()
    credit.grant(WINDOW_PIECES + 1, WINDOW_BYTES)
    credit.grant(1, 1)
    assert credit.is_open()
    assert credit.take(WINDOW_BYTES * 2) == WINDOW_PIECES
    assert not credit.is_open()


def test_one_large_piece_passes_an_open_window() -> None:
    credit = Credit()
    credit.take(WINDOW_BYTES - 1)
    assert credit.is_open()


def test_a_configuration_survives_its_journey_and_ignores_what_is_new() -> None:
    configuration = Configuration("co-1", sources=("/a",), env={"A": "b"}, is_generator=True)
    assert Configuration.read(configuration._asdict() | {"invented": 1}) == configuration


def plain() -> None: ...


async def coroutine() -> None: ...


async def generator() -> Any:
    yield 1


class Callables:
    """Objects that can be called."""

    async def __call__(self) -> None: ...

    async def method(self) -> None: ...

    def plain(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain, False),
        (coroutine, True),
        (generator, True),
        (functools.partial(functools.partial(coroutine)), True),
        (Callables(), True),
        (Callables().method, True),
        (Callables().plain, False),
        (len, False),
        (Callables, False),
    ],
)
def test_what_runs_on_a_loop_is_recognised(function: Callable[..., Any], expected: bool) -> None:
    assert runs_on_loop(function) is expected
