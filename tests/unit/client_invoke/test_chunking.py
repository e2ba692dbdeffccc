"""How many inputs travel in one message."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill._chunking import (
    FIRST,
    MAX_HELD,
    MAX_HELD_BYTES,
    MAX_INPUTS,
    MAX_OUTSTANDING,
    MAX_OUTSTANDING_INPUTS,
    SAMPLES,
    TARGET_SECONDS,
    Pace,
    first_window,
    has_room,
)

MANY = 100_000


def taught(seconds: float, *, containers: int = 1, messages: int = 40, inputs: int = 1) -> Pace:
    """Return a pace that has seen so many messages of so expensive inputs."""
    pace = Pace()
    for number in range(messages):
        pace.observe(inputs, seconds * inputs, f"co-{number % containers}")
    return pace


def test_a_map_begins_with_single_inputs() -> None:
    pace = Pace()
    assert pace.size(MANY, 0, exhausted=False) == 1
    assert pace.size(MANY, FIRST - 1, exhausted=True) == 1
    assert pace.size(MANY, FIRST, exhausted=True) == 0


def test_silence_lets_more_single_inputs_go_because_slow_functions_need_all_slots() -> None:
    windows = [first_window(seconds / 10) for seconds in range(100)]
    assert windows[0] == FIRST
    assert windows == sorted(windows)
    assert windows[-1] == MAX_OUTSTANDING


def test_trivial_functions_get_full_chunks_after_few_messages() -> None:
    pace = taught(2e-6, messages=9)
    assert pace.size(MANY, 0, exhausted=False) == MAX_INPUTS


def test_slow_functions_keep_single_inputs() -> None:
    assert taught(0.010).size(MANY, 0, exhausted=False) == 1
    assert taught(30.0).size(MANY, 0, exhausted=True) == 1


def test_chunks_at_most_double_with_each_message() -> None:
    pace, last = Pace(), 1
    for number in range(20):
        pace.observe(last, 1e-6 * last, f"co-{number}")
        size = pace.size(MANY, 0, exhausted=False)
        assert size <= 2 * last
        last = size


def test_while_chunks_still_grow_few_are_sent() -> None:
    pace = Pace()
    pace.observe(1, 1e-6, "co-0")
    assert pace.size(MANY, FIRST, exhausted=False) == 0


def test_the_slow_first_input_of_a_container_is_forgotten() -> None:
    pace = Pace()
    pace.observe(1, 2.0, "co-0")
    for _ in range(SAMPLES + 10):
        pace.observe(1, 1e-6, "co-0")
    assert pace.size(MANY, 0, exhausted=False) == MAX_INPUTS


def test_a_function_that_becomes_slow_gets_small_chunks_at_once() -> None:
    pace = taught(1e-6, inputs=100)
    pace.observe(100, 100 * 0.05, "co-0")
    assert pace.size(MANY, 0, exhausted=False) <= 8


def test_the_tail_of_a_map_is_spread_over_the_containers() -> None:
    pace = taught(1e-5, containers=8)
    assert pace.size(80, 0, exhausted=True) == 10
    assert pace.size(3, 0, exhausted=True) == 1


def test_a_chunk_fills_while_every_slot_has_work() -> None:
    pace = taught(1e-6, containers=4)
    assert pace.size(10, 8, exhausted=False) == 0
    assert pace.size(10, 7, exhausted=False) == 3
    assert pace.size(10, 8, exhausted=True) == 3


def test_a_container_that_is_not_heard_of_any_more_is_no_slot() -> None:
    pace = taught(1e-6, containers=10)
    for _ in range(200):
        pace.observe(1, 1e-6, "co-0")
    assert pace.slots == 1


costs = st.floats(min_value=0, max_value=100, allow_nan=False)
histories = st.lists(st.tuples(st.integers(1, MAX_INPUTS), costs, st.integers(0, 40)), max_size=60)


@given(histories, st.integers(0, MANY), st.integers(0, 2_000), st.booleans(), st.floats(0, 100))
@settings(max_examples=300, deadline=None)
def test_a_chunk_is_never_larger_than_what_is_there_and_what_fits(
    history: list[tuple[int, float, int]], ready: int, outstanding: int, exhausted: bool, silent: float
) -> None:
    pace = Pace()
    for inputs, seconds, container in history:
        pace.observe(inputs, seconds, f"co-{container}")
    size = pace.size(ready, outstanding, exhausted=exhausted, silent=silent)
    assert 0 <= size <= min(ready, MAX_INPUTS)
    if size > 1:
        assert size * pace.seconds <= TARGET_SECONDS * 1.001
        assert size <= math.ceil(ready / pace.slots)
        assert outstanding * size < MAX_OUTSTANDING_INPUTS + MAX_INPUTS
    if size:
        assert outstanding < MAX_OUTSTANDING


@given(histories, st.integers(1, MANY), st.booleans(), st.floats(0, 100))
@settings(max_examples=300, deadline=None)
def test_a_map_with_inputs_and_nothing_outstanding_always_goes_on(
    history: list[tuple[int, float, int]], ready: int, exhausted: bool, silent: float
) -> None:
    pace = Pace()
    for inputs, seconds, container in history:
        pace.observe(inputs, seconds, f"co-{container}")
    assert pace.size(ready, 0, exhausted=exhausted, silent=silent) > 0


@given(st.integers(0, MANY), st.integers(0, MANY), st.floats(0, 1e6))
def test_what_is_held_is_bounded(in_flight: int, waiting: int, mean: float) -> None:
    if has_room(in_flight, waiting, mean):
        assert in_flight + waiting < MAX_HELD
        assert (in_flight + waiting) * mean < MAX_HELD_BYTES
