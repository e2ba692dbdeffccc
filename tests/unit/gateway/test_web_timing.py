"""What a request's time went for."""

import pytest

from tidemill_gateway.web.http import phases


@pytest.mark.parametrize(
    ("age", "run", "ready", "told"),
    [
        (1.0, 0.25, 60.0, b"queue;dur=750.0, start;dur=0.0, run;dur=250.0"),  # the container was there
        (1.0, 0.25, 0.0, b"queue;dur=0.0, start;dur=750.0, run;dur=250.0"),  # it was started for this one
        (1.0, 0.25, 0.5, b"queue;dur=500.0, start;dur=250.0, run;dur=250.0"),  # others were taken first
        (0.1, 0.2, 0.5, b"queue;dur=0.0, start;dur=0.0, run;dur=200.0"),  # clocks of two machines
    ],
)
def test_waiting_is_told_from_starting(age: float, run: float, ready: float, told: bytes) -> None:
    assert phases(age, (run, ready)) == told


def test_a_new_container_tells_what_its_start_took() -> None:
    told = phases(10.0, (0.5, 0.25, 1.0, 2.0, 1.0, 4.0, 0.5))
    assert told == (
        b"queue;dur=1000.0, place;dur=1000.0, image;dur=2000.0, start;dur=1000.0, import;dur=4000.0, "
        b"enter;dur=500.0, run;dur=500.0"
    )
    assert phases(0.75, (0.25, 5.0, 1.0, 2.0, 1.0, 4.0, 0.5)).startswith(b"queue;dur=500.0, start;dur=0.0")
