"""When a function runs by itself: `Cron` at moments of the calendar, `Period` at intervals."""

import calendar
import datetime
from dataclasses import dataclass
from typing import Any, Final

from tidemill.exception import InvalidError

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}

# field, lowest, highest, names
_FIELDS: Final[tuple[tuple[str, int, int, dict[str, int]], ...]] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True)
class Cron:
    """A schedule in the form of crontab: minute, hour, day of month, month, day of week.

    Args:
        cron_string: for example `"5 4 * * *"`, every day at 04:05.
        timezone: the IANA name of the time zone that the moments are meant in. Default UTC.

    Raises:
        InvalidError: the string is no crontab schedule, or nobody knows the time zone.
    """

    cron_string: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if not isinstance(self.cron_string, str):
            raise InvalidError(f"a cron schedule has to be a string, not {self.cron_string!r}")
        fields = self.cron_string.split()
        if len(fields) != len(_FIELDS):
            raise InvalidError(
                f"a cron schedule has five fields, {self.cron_string!r} has {len(fields)}",
                hint="minute, hour, day of month, month, day of week: '5 4 * * *' is every day at 04:05",
            )
        for text, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
            _check_field(self.cron_string, name, text, low, high, names)
        _check_timezone(self.timezone)

    def record(self) -> dict[str, Any]:
        """Return the schedule as the platform keeps it."""
        return {"kind": "cron", "cron": self.cron_string, "timezone": self.timezone}


def _check_field(cron: str, name: str, text: str, low: int, high: int, names: dict[str, int]) -> None:
    for part in text.split(","):
        span, _, step = part.partition("/")
        if "/" in part and not (step.isdecimal() and int(step) >= 1):
            raise _bad_field(cron, name, part, low, high)
        if span == "*":
            continue
        ends = [names.get(end.lower(), int(end) if end.isdecimal() else -1) for end in span.split("-")]
        if len(ends) > 2 or not all(low <= end <= high for end in ends) or ends != sorted(ends):
            raise _bad_field(cron, name, part, low, high)


def _bad_field(cron: str, name: str, part: str, low: int, high: int) -> InvalidError:
    return InvalidError(
        f"cron schedule {cron!r}: {part!r} is no {name}",
        hint=f"a {name} is '*', a number from {low} to {high}, a range such as {low}-{high}, or a step: */2",
    )


def _check_timezone(name: str) -> None:
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, TypeError) as error:
        raise InvalidError(
            f"unknown time zone {name!r}",
            hint="use an IANA name such as 'Europe/Berlin'; without a system database install 'tzdata'",
        ) from error


@dataclass(frozen=True, kw_only=True)
class Period:
    """A schedule that repeats after a time. A month or a day is one of the calendar, however long it is.

    Args:
        years, months, weeks, days, hours, minutes: whole numbers, 0 or more.
        seconds: 0 or more, fractions allowed.

    Raises:
        InvalidError: a number is negative or not whole, or all are 0.
    """

    years: int = 0
    months: int = 0
    weeks: int = 0
    days: int = 0
    hours: int = 0
    minutes: int = 0
    seconds: float = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kinds = (int, float) if name == "seconds" else int
            if isinstance(value, bool) or not isinstance(value, kinds) or value < 0:
                raise InvalidError(f"the {name} of a Period have to be 0 or more, not {value!r}")
        if not any(vars(self).values()):
            raise InvalidError("a Period has to be longer than nothing", hint="for example Period(hours=1)")

    def after(self, moment: datetime.datetime) -> datetime.datetime:
        """Return the moment one period later: months by the calendar, a missing day is the month's last."""
        months = moment.month - 1 + self.months + 12 * self.years
        year, month = moment.year + months // 12, months % 12 + 1
        day = min(moment.day, calendar.monthrange(year, month)[1])
        moved = moment.replace(year=year, month=month, day=day)
        by_day = moved + datetime.timedelta(days=self.days + 7 * self.weeks)
        exact = datetime.timedelta(hours=self.hours, minutes=self.minutes, seconds=self.seconds)
        if not exact or by_day.tzinfo is None:
            return by_day + exact
        return (by_day.astimezone(datetime.UTC) + exact).astimezone(by_day.tzinfo)

    def record(self) -> dict[str, Any]:
        """Return the schedule as the platform keeps it."""
        return {"kind": "period", **{name: value for name, value in vars(self).items() if value}}


Schedule = Cron | Period
