"""What a new version means for the schedules of an app's functions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tidemill._wire import ids
from tidemill._wire.control import Pool
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
    before: Sequence[Kept],
    after: Sequence[Pool],
    version: int,
    new_id: Callable[[str], str] = ids.new,
) -> Changes:
    """Return what becomes of the schedules that stood when `version` is served by the pools `after`.

    A function keeps its schedule's id as long as it has a schedule. `after` is empty for an app that stops.
    """
    standing = {schedule.function_id: schedule for schedule in before}
    kept = tuple(
        Kept(
            standing[pool.function_id].id if pool.function_id in standing else new_id(ids.SCHEDULE),
            pool.function_id,
            pool.spec.schedule,
            version,
            pool.id,
        )
        for pool in after
        if pool.spec.schedule is not None
    )
    scheduled = {schedule.function_id for schedule in kept}
    return Changes(kept, tuple(one.id for one in before if one.function_id not in scheduled))
