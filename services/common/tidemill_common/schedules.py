"""A schedule as a message in TIMERS: NATS keeps the clock, the registry sets it, schedulers act on it.

Cron, Period of whole seconds    one message that NATS fires again and again
Period with months or fractions  a message for one moment; whoever acts on its firing sets the next
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from tidemill import schedule
from tidemill._bus import jetstream
from tidemill._wire import coding, ids, subjects
from tidemill._wire.schedules import Firing
from tidemill.schedule import Cron, Period

NEXT = "Nats-Schedule-Next"  # of a firing: when the next one is due, or "purge" after the only one
LATE = 1.0  # seconds: what fires later than this, NATS could not fire in time


class Timer(NamedTuple):
    """A message for TIMERS."""

    subject: str
    data: bytes
    headers: dict[str, str]


def timer(firing: Firing, now: float) -> Timer:
    """Return the timer of a schedule that is set now; `InvalidError` if it declares none.

    A second one on the same subject takes the place of the first.
    """
    declared = schedule.from_record(firing.declared)
    headers = {"Nats-Schedule-Target": subjects.schedule_due(firing.workspace, firing.schedule)}
    if isinstance(declared, Cron):
        headers["Nats-Schedule"] = declared.crontab.pattern
        if declared.timezone != "UTC":
            headers["Nats-Schedule-Time-Zone"] = declared.timezone
    elif seconds := declared.whole_seconds:
        headers["Nats-Schedule"] = f"@every {seconds}s"
    else:
        due = declared.next_after(now, anchor=firing.anchor or now)
        firing = replace(firing, anchor=firing.anchor or now, due=due, armed=now)
        headers["Nats-Schedule"] = f"@at {jetstream.rfc3339(due)}"
    subject = subjects.schedule_timer(firing.workspace, firing.schedule)
    return Timer(subject, coding.encode(firing), headers)


def following(firing: Firing, fired: float) -> Timer | None:
    """Return the timer that follows on a firing, None where NATS repeats it; `fired` is when NATS told it.

    What was missed while there was no NATS is fired once; what nobody took in time is fired still.
    """
    if not firing.due:
        return None
    missed = fired - max(firing.due, firing.armed) > LATE
    declared = schedule.from_record(firing.declared)
    assert isinstance(declared, Period)
    due = declared.next_after(fired if missed else firing.due, anchor=firing.anchor)
    firing = replace(firing, due=due, armed=fired)
    headers = {
        "Nats-Schedule-Target": subjects.schedule_due(firing.workspace, firing.schedule),
        "Nats-Schedule": f"@at {jetstream.rfc3339(due)}",
        # Whoever deployed a new version meanwhile has set another timer, which stays.
        "Nats-Expected-Last-Subject-Sequence": "0",
    }
    subject = subjects.schedule_timer(firing.workspace, firing.schedule)
    return Timer(subject, coding.encode(firing), headers)


def due(firing: Firing, headers: Mapping[str, str]) -> float:
    """Return when a firing was due: the same for each time that it is told (unix time)."""
    if firing.due:
        return firing.due
    upcoming = next_firing(headers)
    if upcoming is None:
        raise ValueError(f"a firing without the header {NEXT}")
    declared = schedule.from_record(firing.declared)
    if isinstance(declared, Cron):
        return declared.last_before(upcoming)
    return upcoming - (declared.whole_seconds or 0)


def next_firing(headers: Mapping[str, str]) -> float | None:
    """Return when NATS fires next, as it says in a firing; None when it does not by itself."""
    told = headers.get(NEXT, "purge")
    return None if told == "purge" else datetime.fromisoformat(told).timestamp()


def call_id(firing: Firing, headers: Mapping[str, str]) -> str:
    """Return the id of the call that a firing makes: of one firing always the same."""
    told = headers.get(NEXT, "") if not firing.due else repr(firing.due)
    return ids.derived(ids.CALL, due(firing, headers), firing.schedule, told)
