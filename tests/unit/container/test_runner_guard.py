"""Exceptions of signals arrive in the user's frame or not at all."""

import signal
import threading
from collections.abc import Iterator

import pytest

from tidemill._container.guard import Guard
from tidemill.exception import InputCancellation

ONE, TWO = (1, 0), (1, 1)
NUMBERS = (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def interrupts() -> list[str]:
    return []


@pytest.fixture
def guard(interrupts: list[str]) -> Iterator[Guard]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    guard = Guard(lambda: interrupts.append("interrupted"))
    guard.install()
    yield guard
    guard.active = None
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_cancellation_is_raised_in_the_active_input(guard: Guard) -> None:
    guard.arm(ONE)
    guard.want(ONE)
    with pytest.raises(InputCancellation):
        guard.signal()
    assert guard.stopped == ONE


def test_it_is_raised_once(guard: Guard) -> None:
    guard.arm(ONE)
    guard.want(ONE)
    with pytest.raises(InputCancellation):
        guard.signal()
    guard.signal()


def test_it_does_nothing_in_another_input_or_in_none(guard: Guard) -> None:
    guard.want(ONE)
    guard.signal()
    guard.arm(TWO)
    guard.signal()


def test_one_that_came_before_the_frame_was_active_is_not_lost(guard: Guard) -> None:
    guard.want(ONE)
    guard.signal()
    with pytest.raises(InputCancellation):
        guard.arm(ONE)


def test_our_own_code_is_left_to_put_its_things_in_order(guard: Guard) -> None:
    guard.arm(ONE)
    guard.hold()
    guard.want(ONE)
    guard.signal()
    with pytest.raises(InputCancellation):
        guard.release()


def test_other_threads_hold_nothing_off(guard: Guard) -> None:
    thread = threading.Thread(target=guard.hold)
    thread.start()
    thread.join()
    guard.arm(ONE)
    guard.want(ONE)
    with pytest.raises(InputCancellation):
        guard.signal()


def test_a_finished_chunk_is_forgotten(guard: Guard) -> None:
    guard.want(ONE)
    guard.want((2, 0))
    guard.forget(1)
    guard.arm(ONE)
    assert guard.is_wanted((2, 0))


def test_the_first_stop_signal_interrupts_and_the_others_do_nothing(
    guard: Guard, interrupts: list[str]
) -> None:
    guard.arm(ONE)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert interrupts == ["interrupted"]
    assert guard.interrupted


def test_a_stop_signal_outside_of_user_code_raises_nothing(guard: Guard, interrupts: list[str]) -> None:
    signal.raise_signal(signal.SIGINT)
    assert interrupts == ["interrupted"]
    with pytest.raises(KeyboardInterrupt):
        guard.arm(ONE)
