"""Schedules of deployed functions: the record that is kept, and requests about them.

`FunctionSpec.schedule` holds what the user declared: `{"kind": "cron", "cron": ..., "timezone": ...}` or
`{"kind": "period", "seconds": ..., "months": ...}`; see `tidemill.schedule`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Firing:
    """What waits in TIMERS for a schedule: which pool is to be called, and for which schedule.

    `schedule` is the schedule's id (`sc-...`), `version` the deployment that set it. The call's id
    follows from the schedule and the time it was due, so that a firing told twice is one call.
    """

    schedule: str
    version: int
    pool: str
    prefix: str
    workspace: str
    app_id: str
    function_id: str


@dataclass(frozen=True, slots=True)
class ListSchedules:
    """`list_schedules`: those of an environment (all without one), by app and function. `ScheduleList`."""

    environment: str = ""
    app: str = ""
    limit: int = 100
    cursor: str = ""


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


@dataclass(frozen=True, slots=True)
class ScheduleList:
    """The answer to `ListSchedules`."""

    schedules: tuple[ScheduleInfo, ...]
    cursor: str = ""
