"""What a new version means for the schedules of an app's functions, and what NATS is told of it.

A function has at most one schedule, and keeps its id as long as it has one. The timer of a `Cron` stays as
it is while the schedule does, whatever else a version changes: a timer that is set anew just when it is due
could miss that time. A `Period` is set anew by each version, which restarts its counting.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tidemill import schedule
from tidemill._wire import ids, subjects
from tidemill._wire.schedules import Fired, Firing
from tidemill._wire.specs import Pool
from tidemill.schedule import Cron
from tidemill_common import schedules, streams
from tidemill_registry import outbox
from tidemill_registry.outbox import Entry


class Kept(NamedTuple):
    """A schedule as it stands in its table."""

    id: str
    function_id: str
    record: Mapping[str, Any]
    version: int
    pool: str


class Changes(NamedTuple):
    """What becomes of an app's schedules: rows that are written, rows that go, and what NATS is told."""

    kept: tuple[Kept, ...] = ()
    removed: tuple[str, ...] = ()
    told: tuple[Entry, ...] = ()


def changes(
    workspace: str,
    before: Sequence[Kept],
    after: Sequence[Pool],
    version: int,
    made: float,
    new_id: Callable[[str], str] = ids.new,
) -> Changes:
    """Return what becomes of the schedules that stood when `version` is served by the pools `after`.

    `made` is the unix time of the version. `after` is empty for an app that stops.
    """
    standing = {kept.function_id: kept for kept in before}
    kept: list[Kept] = []
    told: list[Entry] = []
    for pool in after:
        if pool.spec.schedule is not None:
            known = standing.get(pool.function_id)
            name = known.id if known else new_id(ids.SCHEDULE)
            one = Kept(name, pool.function_id, pool.spec.schedule, version, pool.id)
            kept.append(one)
            if known is None or not _goes_on(known, one):
                timer = schedules.timer(firing(one, pool, made), made)
                told.append(outbox.timer(*timer))
    scheduled = {one.function_id for one in kept}
    removed = tuple(one.id for one in before if one.function_id not in scheduled)
    for name in removed:
        told.append(outbox.untimer(subjects.schedule_timer(workspace, name)))
        told.append(Entry("delete", streams.FIRINGS, name, None))
    return Changes(tuple(kept), removed, tuple(told))


def _goes_on(before: Kept, after: Kept) -> bool:
    """Return whether a timer stays as it is."""
    return before.record == after.record and after.record.get("kind") == "cron"


def firing(kept: Kept, pool: Pool, made: float) -> Firing:
    """Return what waits in TIMERS for a schedule that a version, made at a unix time, has set."""
    return Firing(
        kept.id, kept.version, pool.id, pool.prefix, pool.workspace, pool.app_id, pool.function_id,
        dict(kept.record), anchor=made,
    )  # fmt: skip


def upcoming(record: Mapping[str, Any], made: float, fired: Fired | None) -> float:
    """Return when a schedule fires next: as NATS said at its last firing, else by its own rule."""
    now = time.time()
    if fired and fired.next and fired.next > now and fired.time > made:
        return fired.next
    declared = schedule.from_record(dict(record))
    return declared.next_after(now) if isinstance(declared, Cron) else declared.next_after(now, anchor=made)
