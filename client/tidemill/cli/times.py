"""Times on the command line: how they are given and how they are shown."""

import datetime
import re
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tidemill._wire.messages import Try

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def moment(given: str) -> float:
    """Return the unix time that is meant: `30s`, `2h` or `7d` ago, or a date and time in ISO 8601.

    A time without a zone is one of this machine's.
    """
    if found := _AGO.fullmatch(given.strip()):
        return time.time() - float(found[1]) * _UNITS[found[2]]
    try:
        return datetime.datetime.fromisoformat(given.strip()).astimezone().timestamp()
    except ValueError:
        raise click.BadParameter(
            f"not a time: {given!r}; give 30s, 15m, 2h, 7d (ago) or 2026-01-31T12:00:00"
        ) from None


def clock(when: float | None) -> str:
    """Return a unix time as it is shown here."""
    if when is None:
        return "-"
    return datetime.datetime.fromtimestamp(when).astimezone().isoformat(" ", "seconds")


def span(since: float | None, until: float | None) -> str:
    """Return how long something took."""
    if since is None or until is None:
        return "-"
    seconds = max(0.0, until - since)
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    return str(datetime.timedelta(seconds=round(seconds)))


def attempt(tried: "Try") -> dict[str, Any]:
    """Return an attempt at an input as it is written in JSON."""
    from tidemill.cli import listing

    return {
        "attempt": tried.attempt,
        "container_id": tried.container,
        "started_at": listing.time(tried.started),
        "finished_at": listing.time(tried.finished),
        "reason": tried.reason,
    }
