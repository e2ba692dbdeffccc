"""When a function runs by itself: `Cron` at moments of the calendar, `Period` at intervals."""

import calendar
import datetime
import math
from dataclasses import dataclass
from typing import Any

from tidemill import _crontab
from tidemill.exception import InvalidError

SHORTEST = datetime.timedelta(seconds=1)  # between two firings
LONGEST = datetime.timedelta(days=36_525)  # far from where dates end


@dataclass(frozen=True)
class Cron:
    """A schedule in the form of crontab: minute, hour, day of month, month, day of week.

    Where both day fields are restricted, a day counts that fits either of them. A time that the time
    zone's clock skips (daylight saving begins) does not come that day; one that it shows twice comes twice.

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
        read(self.cron_string)
        _check_timezone(self.timezone)

    @property
    def crontab(self) -> _crontab.Crontab:
        """What the string means."""
        return read(self.cron_string)

    def next_after(self, moment: float) -> float:
        """Return the first moment after `moment` (unix times)."""
        return self.crontab.after(moment, self._zone)

    def last_before(self, moment: float) -> float:
        """Return the last moment before `moment` (unix times)."""
        return self.crontab.before(moment, self._zone)

    @property
    def _zone(self) -> datetime.tzinfo:
        import zoneinfo

        return zoneinfo.ZoneInfo(self.timezone)

    def record(self) -> dict[str, Any]:
        """Return the schedule as the platform keeps it."""
        return {"kind": "cron", "cron": self.cron_string, "timezone": self.timezone}

    def __str__(self) -> str:
        return f'Cron("{self.cron_string}", timezone="{self.timezone}")'


def read(cron_string: str) -> _crontab.Crontab:
    """Return what a crontab schedule means; `InvalidError`."""
    try:
        crontab = _crontab.read(cron_string)
    except _crontab.BadField as error:
        field = error.field
        raise InvalidError(
            f"cron schedule {cron_string!r}: {error}",
            hint=f"a {field.name} is '*', a number from {field.low} to {field.high}, "
            f"a range such as {field.low}-{field.high}, or a step: */2",
        ) from None
    except ValueError:
        raise InvalidError(
            f"a cron schedule has five fields, {cron_string!r} has {len(cron_string.split())}",
            hint="minute, hour, day of month, month, day of week: '5 4 * * *' is every day at 04:05",
        ) from None
    if not crontab.is_possible:
        raise InvalidError(f"cron schedule {cron_string!r}: there is no such day in any year")
    return crontab


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
        seconds: 0 or more, fractions allowed; in all at least 1 second, at most a century.

    Raises:
        InvalidError: a number is negative or not whole, or the whole is too short or too long.
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
        try:
            longest = datetime.timedelta(self._days + 31 * self._months, self._seconds)
        except (OverflowError, ValueError):  # no number at all is among them
            longest = datetime.timedelta.max
        if longest > LONGEST:
            raise InvalidError("a Period has to be shorter than a century")
        if longest < SHORTEST:
            raise InvalidError(
                f"the shortest Period is {SHORTEST.total_seconds():g} s, this one has {self.seconds:g}",
                hint="for work without a pause, let the function loop",
            )

    @property
    def _months(self) -> int:
        return self.months + 12 * self.years

    @property
    def _days(self) -> int:
        return self.days + 7 * self.weeks

    @property
    def _seconds(self) -> float:
        return 3_600 * self.hours + 60 * self.minutes + self.seconds

    @property
    def whole_seconds(self) -> int | None:
        """Its length in seconds; None where that is no whole number, or months make it vary."""
        length = 86_400 * self._days + self._seconds
        return int(length) if not self._months and length == int(length) else None

    def next_after(self, moment: float, *, anchor: float) -> float:
        """Return the first of its moments after `moment`, counted from `anchor` (unix times).

        Each is counted from the anchor: a month after 31 January it is 28 February, then 31 March.
        """
        start = datetime.datetime.fromtimestamp(anchor, datetime.UTC)
        longest = (31 * self._months + self._days) * 86_400 + self._seconds
        number = max(1, math.floor((moment - anchor) / longest))
        while (found := self._later(start, number).timestamp()) <= moment:
            number += 1
        return found

    def after(self, moment: datetime.datetime) -> datetime.datetime:
        """Return the moment one period later: months by the calendar, a missing day is the month's last."""
        return self._later(moment, 1)

    def _later(self, moment: datetime.datetime, times: int) -> datetime.datetime:
        months = moment.month - 1 + times * self._months
        year, month = moment.year + months // 12, months % 12 + 1
        day = min(moment.day, calendar.monthrange(year, month)[1])
        moved = moment.replace(year=year, month=month, day=day)
        by_day = moved + datetime.timedelta(days=times * self._days)
        exact = datetime.timedelta(seconds=times * self._seconds)
        if not exact or by_day.tzinfo is None:
            return by_day + exact
        return (by_day.astimezone(datetime.UTC) + exact).astimezone(by_day.tzinfo)

    def record(self) -> dict[str, Any]:
        """Return the schedule as the platform keeps it."""
        return {"kind": "period", **{name: value for name, value in vars(self).items() if value}}

    def __str__(self) -> str:
        return f"Period({', '.join(f'{name}={value:g}' for name, value in vars(self).items() if value)})"


Schedule = Cron | Period


def from_record(record: dict[str, Any]) -> Schedule:
    """Return the schedule that a record is of; `InvalidError` if there is none."""
    fields = {name: value for name, value in record.items() if name != "kind"}
    try:
        if record.get("kind") == "cron":
            return Cron(fields.pop("cron"), **fields)
        if record.get("kind") == "period":
            return Period(**fields)
    except (KeyError, TypeError):
        pass
    raise InvalidError(f"not a schedule: {record!r}")
