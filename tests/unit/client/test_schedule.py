from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Cron, Period
from tidemill.exception import InvalidError

BERLIN = ZoneInfo("Europe/Berlin")
LOW, HIGH = datetime(2000, 1, 1), datetime(2100, 1, 1)  # noqa: DTZ001 - what hypothesis wants


@pytest.mark.parametrize(
    "cron",
    ["* * * * *", "5 4 * * *", "*/15 0-6,22,23 1 jan-mar MON", "0 0 31 12 7", "59 23 1-31/2 1,6 sun,sat"],
)
def test_what_crontab_knows_is_a_schedule(cron: str) -> None:
    assert Cron(cron).record() == {"kind": "cron", "cron": cron, "timezone": "UTC"}


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "1-2-3 * * * *",
        "1/ * * * *",
        ", * * * *",
    ],
)
def test_what_crontab_does_not_know_is_refused(cron: str) -> None:
    with pytest.raises(InvalidError):
        Cron(cron)


def test_a_cron_may_have_a_time_zone() -> None:
    assert Cron("0 6 * * *", timezone="Europe/Berlin").record()["timezone"] == "Europe/Berlin"


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd", None])
def test_a_time_zone_nobody_knows_is_refused(zone: object) -> None:
    with pytest.raises(InvalidError, match="time zone"):
        Cron("0 6 * * *", timezone=zone)


def test_a_period_keeps_only_what_is_set() -> None:
    assert Period(days=1, seconds=0.5).record() == {"kind": "period", "days": 1, "seconds": 0.5}


def test_a_month_after_the_last_of_january_is_the_last_of_february() -> None:
    assert Period(months=1).after(datetime(2027, 1, 31, 12, tzinfo=UTC)) == datetime(
        2027, 2, 28, 12, tzinfo=UTC
    )
    assert Period(months=1).after(datetime(2028, 1, 31, 12, tzinfo=UTC)) == datetime(
        2028, 2, 29, 12, tzinfo=UTC
    )


def test_years_and_months_carry_over() -> None:
    moment = datetime(2027, 11, 5, tzinfo=UTC)
    assert Period(years=1, months=3, weeks=1).after(moment) == datetime(2029, 2, 12, tzinfo=UTC)


def test_a_day_keeps_the_hour_when_the_clocks_change() -> None:
    moment = datetime(2027, 3, 27, 12, tzinfo=BERLIN)
    assert Period(days=1).after(moment) == datetime(2027, 3, 28, 12, tzinfo=BERLIN)


def test_hours_are_as_long_as_they_are_when_the_clocks_change() -> None:
    moment = datetime(2027, 3, 27, 12, tzinfo=BERLIN)
    assert Period(hours=24).after(moment) == datetime(2027, 3, 28, 13, tzinfo=BERLIN)


@given(
    st.datetimes(timezones=st.just(UTC), min_value=LOW, max_value=HIGH),
    st.integers(0, 30),
    st.integers(0, 40),
    st.integers(0, 1000),
    st.floats(0.001, 1e6),
)
def test_a_period_always_leads_forward(
    moment: datetime, years: int, months: int, days: int, seconds: float
) -> None:
    assert Period(years=years, months=months, days=days, seconds=seconds).after(moment) > moment


@pytest.mark.parametrize(
    "wrong", [{}, {"days": -1}, {"days": 1.5}, {"hours": True}, {"seconds": -0.1}, {"days": "1"}]
)
def test_a_period_of_nothing_or_less_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        Period(**wrong)
