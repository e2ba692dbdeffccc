"""What a crontab expression means: the moments it names, and how the NATS server is told.

The server keeps the clock, this module only says the same in its words. It knows six fields, the first
being seconds, and days of the week from 0 to 6. Every field is therefore written out, as `*` or as the
list of its values, so that nothing is left to interpretation.

    a day counts when      both day fields fit, or, where neither is `*`, one of them does
    a skipped wall time    (the clock goes forward) names no moment that day
    a doubled wall time    (the clock goes back) names two
"""

import calendar
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of each month
_SEARCHED: Final = 9 * 366  # days: between two 29th of February lie up to eight years


class Field(NamedTuple):
    """A field of a crontab expression: what it is called, its values, and names for them."""

    name: str
    low: int
    high: int
    names: dict[str, int]


MINUTE, HOUR = Field("minute", 0, 59, {}), Field("hour", 0, 23, {})
DAY, MONTH = Field("day of month", 1, 31, {}), Field("month", 1, 12, _MONTHS)
WEEKDAY = Field("day of week", 0, 6, _WEEKDAYS)  # 7 is Sunday too
FIELDS: Final = (MINUTE, HOUR, DAY, MONTH, WEEKDAY)


class BadField(ValueError):
    """A part of an expression that is not a value of its field."""

    def __init__(self, field: Field, part: str) -> None:
        super().__init__(f"{part!r} is no {field.name}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one field, ascending; `any` when it is `*`."""

    values: tuple[int, ...]
    any: bool = False

    def __str__(self) -> str:
        return "*" if self.any else ",".join(map(str, self.values))


@dataclass(frozen=True, slots=True)
class Crontab:
    """A crontab expression, read."""

    minutes: Values
    hours: Values
    days: Values
    months: Values
    weekdays: Values

    @property
    def pattern(self) -> str:
        """The expression as NATS takes it."""
        return f"0 {self.minutes} {self.hours} {self.days} {self.months} {self.weekdays}"

    @property
    def is_possible(self) -> bool:
        """Whether there is such a day in any year."""
        by_date = any(self.days.values[0] <= _LONGEST[month - 1] for month in self.months.values)
        return by_date or not (self.weekdays.any or self.days.any)

    def after(self, moment: float, zone: datetime.tzinfo) -> float:
        """Return the first moment after `moment` (unix times)."""
        day = datetime.datetime.fromtimestamp(moment, zone).date()
        for days in range(_SEARCHED):
            for found in self._on(day + datetime.timedelta(days), zone):
                if found > moment:
                    return found
        raise ValueError(f"no moment fits {self.pattern!r}")

    def before(self, moment: float, zone: datetime.tzinfo) -> float:
        """Return the last moment before `moment` (unix times)."""
        day = datetime.datetime.fromtimestamp(moment, zone).date()
        for days in range(_SEARCHED):
            for found in reversed(list(self._on(day - datetime.timedelta(days), zone))):
                if found < moment:
                    return found
        raise ValueError(f"no moment fits {self.pattern!r}")

    def _on(self, day: datetime.date, zone: datetime.tzinfo) -> Iterator[float]:
        """Yield the moments of a day, in order."""
        if self._fits(day):
            walls = ((hour, minute) for hour in self.hours.values for minute in self.minutes.values)
            found = {moment for wall in walls for moment in _moments(day, *wall, zone)}
            yield from sorted(found)

    def _fits(self, day: datetime.date) -> bool:
        if day.month not in self.months.values:
            return False
        by_date, by_weekday = day.day in self.days.values, day.isoweekday() % 7 in self.weekdays.values
        if self.days.any or self.weekdays.any:
            return by_date and by_weekday
        return by_date or by_weekday


def read(expression: str) -> Crontab:
    """Return what an expression of five fields means; `BadField`, or `ValueError` for another number."""
    texts = expression.split()
    if len(texts) != len(FIELDS):
        raise ValueError(f"{len(texts)} fields")
    return Crontab(*(_field(field, text) for field, text in zip(FIELDS, texts, strict=True)))


def _field(field: Field, text: str) -> Values:
    values: set[int] = set()
    is_any = False
    for part in text.split(","):
        span, slash, step = part.partition("/")
        every = _number(field, part, step) if slash else 1
        low, high = _span(field, part, span, stepped=bool(slash))
        if every < 1:
            raise BadField(field, part)
        values.update(range(low, high + 1, every))
        is_any = is_any or (span == "*" and every == 1)
    if field is WEEKDAY:
        values = {value % 7 for value in values}
    return Values(tuple(sorted(values)), is_any)


def _span(field: Field, part: str, span: str, *, stepped: bool) -> tuple[int, int]:
    """Return the ends of a part: `*`, a value, a range; a value with a step goes on to the end."""
    if span == "*":
        return field.low, field.high
    first, dash, last = span.partition("-")
    low = _value(field, part, first)
    high = _value(field, part, last) if dash else max(low, field.high) if stepped else low
    if field is WEEKDAY and dash and high == 0 < low:
        high = 7  # fri-sun
    if low > high:
        raise BadField(field, part)
    return low, high


def _value(field: Field, part: str, text: str) -> int:
    value = field.names[text.lower()] if text.lower() in field.names else _number(field, part, text)
    if not field.low <= value <= (7 if field is WEEKDAY else field.high):
        raise BadField(field, part)
    return value


def _number(field: Field, part: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4):
        raise BadField(field, part)
    return int(text)


def _moments(day: datetime.date, hour: int, minute: int, zone: datetime.tzinfo) -> Iterator[float]:
    """Yield when a wall clock shows a time: once, never where it skips it, twice where it goes back."""
    for fold in (0, 1):
        wall = datetime.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone, fold=fold)
        moment = wall.timestamp()
        shown = datetime.datetime.fromtimestamp(moment, zone)
        if (shown.date(), shown.hour, shown.minute) == (day, hour, minute):
            yield moment
