"""What the time of an input went for."""

import pytest

from tidemill._wire import phases

START = (10.0, 11.0, 13.0, 14.0, 18.0, 19.0)  # ordered, placed, prepared, there, imported, entered


def test_an_input_that_found_a_container_waited_in_the_queue() -> None:
    assert phases.of(1.0, 1.5, 3.5) == {"queue": 0.5, "run": 2.0}
    assert phases.of(20.0, 20.5, 21.0, START) == {"queue": 0.5, "run": 0.5}, "it was ready before"


def test_an_input_that_waited_for_a_start_is_told_each_part_of_it_that_it_saw() -> None:
    whole = {"place": 1.0, "image": 2.0, "start": 1.0, "import": 4.0, "enter": 1.0}
    assert phases.of(9.0, 19.5, 20.0, START) == {"queue": 1.5, **whole, "run": 0.5}
    late = {"place": 0.0, "image": 0.0, "start": 0.0, "import": 2.0, "enter": 1.0}
    assert phases.of(16.0, 20.0, 20.0, START) == {"queue": 1.0, **late, "run": 0.0}


def test_what_is_not_known_is_not_told() -> None:
    assert phases.of(None, None, None, START) == {}
    assert phases.of(1.0, None, None) == {}
    assert phases.of(1.0, 2.0, None) == {"queue": 1.0}
    assert phases.of(2.0, 1.0, 0.5) == {"queue": 0.0, "run": 0.0}, "clocks of two machines"
    assert phases.of(9.0, 10.0, 11.0, START[:3]) == {"queue": 1.0, "run": 1.0}, "a start that is not whole"


@pytest.mark.parametrize(
    ("waited", "ready", "told"),
    [
        (9.0, 0.0, {"queue": 0.0, "place": 1.0, "image": 2.0, "start": 1.0, "import": 4.0, "enter": 1.0}),
        (11.0, 0.5, {"queue": 2.0, "place": 1.0, "image": 2.0, "start": 1.0, "import": 4.0, "enter": 1.0}),
        (5.0, 1.0, {"queue": 1.0, "place": 0.0, "image": 0.0, "start": 0.0, "import": 3.0, "enter": 1.0}),
        (0.5, 3.0, {"queue": 0.5, "place": 0.0, "image": 0.0, "start": 0.0, "import": 0.0, "enter": 0.0}),
    ],
)
def test_the_wait_of_a_request_is_counted_back_from_its_beginning(
    waited: float, ready: float, told: dict[str, float]
) -> None:
    assert phases.back_from(waited, ready, (1.0, 2.0, 1.0, 4.0, 1.0)) == told


def test_phases_that_are_not_known_count_as_waiting() -> None:
    assert phases.back_from(9.0, 0.0, (4.0, 1.0)) == {"queue": 4.0, "import": 4.0, "enter": 1.0}
