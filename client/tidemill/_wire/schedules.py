"""Schedules of deployed functions: the record that is kept, and requests about them.

`FunctionSpec.schedule` holds what the user declared: `{"kind": "cron", "cron": ..., "timezone": ...}` or
`{"kind": "period", "days": ..., "seconds": ...}`; see `tidemill.schedule`.
"""

from dataclasses import field
from typing import Any

from tidemill._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Firing:
    """What waits in TIMERS for a schedule: which function is to be called, and for which schedule.

    `schedule` is the schedule's id (`sc-...`), `version` the deployment that set it. The call's id
    follows from the schedule and the time it was due, so that a firing told twice is one call.

    `pool` served the function when the timer was set. A timer outlives deployments that do not change the
    schedule: it calls the pool that serves the function when it fires, if that still has the schedule
    `declared` (`FunctionSpec.schedule`), and nothing otherwise.

    Where NATS cannot repeat by itself (months, fractions of a second), the timer is for one moment, `due`,
    and each firing sets the next: moments are counted from `anchor`; `armed` is when this timer was set.
    """

    schedule: str
    version: int
    pool: str
    prefix: str
    workspace: str
    app_id: str
    function_id: str
    declared: dict[str, Any] = field(default_factory=dict)
    anchor: float = 0.0
    due: float = 0.0
    armed: float = 0.0


@dataclass(frozen=True, slots=True)
class Fired:
    """The last firing of a schedule, kept in the `firings` bucket under the schedule's id (unix times).

    `call` is empty where the firing made none. `next` is what NATS said then.
    """

    schedule: str
    time: float
    call: str
    next: float | None = None


@dataclass(frozen=True, slots=True)
class ListSchedules:
    """`list_schedules`: those of an environment (all without one), by app and function. `ScheduleList`.

    With `schedule` the one with this id.
    """

    environment: str = ""
    app: str = ""
    limit: int = 100
    cursor: str = ""
    schedule: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """A schedule as it is shown. `next` is when it fires next, `last` when it fired last (unix times)."""

    schedule_id: str
    app_id: str
    app_name: str | None
    environment: str
    function: str
    text: str  # `Cron("0 9 * * *", timezone="Europe/Berlin")`
    next: float | None = None
    last: float | None = None
    last_call: str = ""
    function_id: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleList:
    """The answer to `ListSchedules`."""

    schedules: tuple[ScheduleInfo, ...]
    cursor: str = ""
