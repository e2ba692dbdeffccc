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
