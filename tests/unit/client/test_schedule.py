from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Cron, Period
from tidemill.exception import InvalidError
from tidemill.schedule import Schedule, from_record

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
    st.floats(1, 1e6),
)
def test_a_period_always_leads_forward(
    moment: datetime, years: int, months: int, days: int, seconds: float
) -> None:
    assert Period(years=years, months=months, days=days, seconds=seconds).after(moment) > moment


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"seconds": 0.9},
        {"years": 101},
        {"seconds": float("nan")},
        {"days": -1},
        {"days": 1.5},
        {"hours": True},
        {"seconds": -0.1},
        {"days": "1"},
    ],
)
def test_a_period_of_nothing_or_less_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        Period(**wrong)


@pytest.mark.parametrize(
    ("cron", "pattern"),
    [
        ("* * * * *", "0 * * * * *"),
        ("*/20 0-2,22 1 jan-mar MON", "0 0,20,40 0,1,2,22 1 1,2,3 1"),
        ("0 0 * * 7", "0 0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 0 * * 0,5,6"),
        ("0 0 * * fri-sun", "0 0 0 * * 0,5,6"),
        ("0 0 * * 0-7", "0 0 0 * * 0,1,2,3,4,5,6"),
        ("50/5 */12 29-31/2 */1 *", "0 50,55 0,12 29,31 * *"),
        ("0 0 */10 * 1", "0 0 0 1,11,21,31 * 1"),
        ("*,5 0 1 1 *", "0 * 0 1 1 *"),
    ],
)
def test_nats_is_told_each_value_of_a_field(cron: str, pattern: str) -> None:
    assert Cron(cron).crontab.pattern == pattern


@pytest.mark.parametrize("cron", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *"])
def test_a_day_that_never_comes_is_refused(cron: str) -> None:
    with pytest.raises(InvalidError, match="no such day"):
        Cron(cron)


def unix(*parts: int, zone: tzinfo = UTC, fold: int = 0) -> float:
    return datetime(*parts, tzinfo=zone, fold=fold).timestamp()  # type: ignore[misc,arg-type]


def test_where_both_day_fields_are_restricted_one_of_them_is_enough() -> None:
    cron = Cron("0 0 13 * fri")
    assert cron.next_after(unix(2026, 11, 12)) == unix(2026, 11, 13)
    assert cron.next_after(unix(2026, 11, 13)) == unix(2026, 11, 20)
    assert cron.next_after(unix(2026, 12, 11)) == unix(2026, 12, 13)


def test_the_29th_of_february_comes_every_fourth_year() -> None:
    assert Cron("0 0 29 2 *").next_after(unix(2025, 1, 1)) == unix(2028, 2, 29)


def test_a_time_that_the_clock_skips_does_not_come_that_day() -> None:
    cron = Cron("30 2 * * *", timezone="Europe/Berlin")
    assert cron.next_after(unix(2027, 3, 27, 12, zone=BERLIN)) == unix(2027, 3, 29, 2, 30, zone=BERLIN)


def test_a_time_that_the_clock_shows_twice_comes_twice() -> None:
    cron = Cron("30 2 * * *", timezone="Europe/Berlin")
    first = cron.next_after(unix(2027, 10, 30, 12, zone=BERLIN))
    assert first == unix(2027, 10, 31, 2, 30, zone=BERLIN)
    assert cron.next_after(first) == first + 3_600


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.integers(0, 6),
    st.floats(unix(2020, 1, 1), unix(2040, 1, 1)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
)
def test_what_comes_next_came_last_before_what_follows(
    minute: int, hour: int, weekday: int, moment: float, zone: str
) -> None:
    cron = Cron(f"{minute} {hour} * * {weekday}", timezone=zone)
    found = cron.next_after(moment)
    assert found > moment
    assert cron.last_before(cron.next_after(found)) == found
    assert cron.last_before(found) <= moment


def test_a_period_of_months_counts_from_where_it_began() -> None:
    period, anchor = Period(months=1), unix(2027, 1, 31, 12)
    assert period.next_after(anchor, anchor=anchor) == unix(2027, 2, 28, 12)
    assert period.next_after(unix(2027, 2, 28, 12), anchor=anchor) == unix(2027, 3, 31, 12)
    assert period.next_after(unix(2031, 2, 1), anchor=anchor) == unix(2031, 2, 28, 12)


@given(st.integers(0, 20), st.integers(0, 400), st.floats(1, 1e5), st.floats(0, 1e9))
def test_the_next_moment_of_a_period_is_the_first_one(
    months: int, days: int, seconds: float, moment: float
) -> None:
    period = Period(months=months, days=days, seconds=seconds)
    found = period.next_after(1e9 + moment, anchor=1e9)
    assert found > 1e9 + moment
    again = period.next_after(found - 1e-3, anchor=1e9)
    assert again == found or found - (1e9 + moment) < 1e-2


@pytest.mark.parametrize(
    ("period", "seconds"),
    [
        (Period(days=1), 86_400),
        (Period(weeks=1, seconds=1.0), 604_801),
        (Period(seconds=1.5), None),
        (Period(months=1), None),
    ],
)
def test_nats_repeats_only_whole_seconds(period: Period, seconds: int | None) -> None:
    assert period.whole_seconds == seconds


@pytest.mark.parametrize("schedule", [Cron("5 4 * * *", timezone="Asia/Tokyo"), Period(days=1, seconds=0.5)])
def test_a_schedule_is_read_from_its_record(schedule: Schedule) -> None:
    assert from_record(schedule.record()) == schedule


@pytest.mark.parametrize(
    "record",
    [{}, {"kind": "cron"}, {"kind": "period", "eons": 1}, {"kind": "cron", "cron": 5}, {"kind": "x"}],
)
def test_what_is_no_record_of_a_schedule_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(InvalidError):
        from_record(record)


def test_a_schedule_is_shown_as_it_is_declared() -> None:
    assert str(Cron("0 9 * * *", timezone="Europe/Berlin")) == 'Cron("0 9 * * *", timezone="Europe/Berlin")'
    assert str(Period(days=1, seconds=0.5)) == "Period(days=1, seconds=0.5)"
