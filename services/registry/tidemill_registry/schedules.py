"""Schedules of functions: which timers a new version sets and removes, and what NATS must be told.

A function has at most one schedule, whose id follows from the function's: it is the same through all
versions. A timer stays as it is while the schedule does, whatever else a deployment changes, so that no
firing is missed; a period is set anew by each version, which restarts its counting.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tidemill._wire import ids, subjects
from tidemill._wire.control import Pool
from tidemill._wire.schedules import Firing
from tidemill_common import schedules


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A function's schedule in one version of its app: what it declares, and the pool that serves it.

    `set_at` is the unix time of the version that set its timer.
    """

    id: str
    workspace: str
    app_id: str
    function_id: str
    pool: str
    prefix: str
    version: int
    declared: dict[str, Any]
    set_at: float

    @property
    def subject(self) -> str:
        """Where its timer waits."""
        return subjects.schedule_timer(self.workspace, self.id)

    def timer(self, now: float) -> schedules.Timer:
        """Return the message that sets its timer; one that is set again goes on counting from `set_at`."""
        firing = Firing(
            self.id, self.version, self.pool, self.prefix, self.workspace, self.app_id, self.function_id,
            self.declared, anchor=self.set_at,
        )  # fmt: skip
        return schedules.timer(firing, now)


class Changes(NamedTuple):
    """What a new version makes of the schedules: timers to set, to leave alone, and to remove."""

    set: tuple[Scheduled, ...]
    kept: tuple[Scheduled, ...]
    removed: tuple[Scheduled, ...]


def schedule_id(function_id: str) -> str:
    """Return the id of a function's schedule."""
    return ids.related(ids.SCHEDULE, function_id)


def scheduled(pools: Iterable[Pool], version: int, now: float) -> dict[str, Scheduled]:
    """Return the schedules of a version that is made now, by id, from the pools that serve it."""
    return {
        schedule_id(pool.function_id): Scheduled(
            schedule_id(pool.function_id), pool.workspace, pool.app_id, pool.function_id, pool.id,
            pool.prefix, version, pool.spec.schedule, now,
        )
        for pool in pools
        if pool.spec.schedule
    }  # fmt: skip


def changes(before: Mapping[str, Scheduled], after: Mapping[str, Scheduled]) -> Changes:
    """Return what leads from the schedules of the version before to those of the new one."""
    kept = {
        name: one
        for name, one in after.items()
        if name in before and before[name].declared == one.declared and one.declared["kind"] == "cron"
    }
    return Changes(
        set=tuple(one for name, one in after.items() if name not in kept),
        kept=tuple(kept.values()),
        removed=tuple(one for name, one in before.items() if name not in after),
    )
