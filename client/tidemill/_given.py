"""Single parameters of `@app.function(...)`: numbers, times and flags. All raise `InvalidError`."""

from collections.abc import Mapping
from typing import Any

from tidemill.exception import InvalidError

MIN_TIMEOUT, MAX_TIMEOUT = 1, 86_400  # seconds

Kinds = tuple[type[int] | type[float], ...]


def pair(name: str, value: Any, kinds: Kinds, default: float) -> tuple[int | float, int | float | None]:
    """Return (request, limit) of a value that is a number or such a pair."""
    if value is None:
        return default, None
    if not isinstance(value, tuple | list):
        check_number(name, value, kinds)
        return value, None
    if len(value) != 2:
        raise InvalidError(f"{name} has to be a number or (request, limit), not {value!r}")
    request, limit = value
    check_number(name, request, kinds)
    check_number(name, limit, kinds)
    if limit < request:
        raise InvalidError(f"the limit of {name} ({limit}) is below its request ({request})")
    return request, limit


def check_number(name: str, value: Any, kinds: Kinds) -> None:
    """Refuse what is no number of these kinds above 0."""
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < float("inf"):
        kind = "number" if float in kinds else "whole number"
        raise InvalidError(f"{name} has to be a {kind} above 0, not {value!r}")


def count(given: Mapping[str, Any], name: str, lowest: int) -> int | None:
    """Return a whole number from `lowest` on, or None if it is not given."""
    value = given[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InvalidError(f"{name} has to be a whole number, {lowest} or more, not {value!r}")
    return value


def seconds(name: str, value: Any) -> float:
    """Return a time limit."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not MIN_TIMEOUT <= value <= MAX_TIMEOUT:
        raise InvalidError(
            f"{name} has to be {MIN_TIMEOUT} to {MAX_TIMEOUT:,} seconds (a day), not {value!r}"
        )
    return float(value)


def flag(given: Mapping[str, Any], name: str) -> bool:
    """Return what is True or False."""
    value = given[name]
    if not isinstance(value, bool):
        raise InvalidError(f"{name} has to be True or False, not {value!r}")
    return value
