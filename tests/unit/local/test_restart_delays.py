"""When a part that died is started again."""

from hypothesis import given
from hypothesis import strategies as st

from tidemill_local.decisions import FIRST_DELAY, LAST_DELAY, SETTLED, deaths_in_a_row, restart_delay


def test_the_first_restart_is_quick() -> None:
    assert restart_delay(deaths_in_a_row(0, served=0.0)) == FIRST_DELAY


@given(st.integers(1, 10_000))
def test_restarts_slow_down_to_a_bound(deaths: int) -> None:
    assert restart_delay(deaths) <= restart_delay(deaths + 1) <= LAST_DELAY


def test_a_part_that_served_for_long_is_forgiven() -> None:
    assert deaths_in_a_row(7, served=SETTLED) == 1
    assert deaths_in_a_row(7, served=SETTLED - 1) == 8
