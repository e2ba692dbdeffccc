"""Telling NATS what rows of the outbox say: some at a time, for as long as it goes forward.

The read models come first, so that whoever hears an event finds them there, and of them the handles, which
a pool's containers look for. A NATS that is slow, of several
nodes that write everything to their disks, is waited for; one that takes nothing is not: a replica that has
lost it must not keep the others from telling it.
"""

import asyncio
from collections.abc import Callable, Sequence

from sqlalchemy import Row

from tidemill._bus.protocol import BusError, Refused
from tidemill_common import streams
from tidemill_common.bus.protocol import ServiceBus
from tidemill_registry.schema import Outbox

TOGETHER = 20  # rows on their way at once
TELL = 3.0  # seconds for these to reach NATS

OnRefused = Callable[[Row[Outbox], Refused], None]


async def tell(
    bus: ServiceBus, rows: Sequence[Row[Outbox]], on_refused: OnRefused
) -> tuple[list[int], Exception | None]:
    """Tell NATS about rows; return the ids of those it has now, and what kept the others back.

    Of rows about one key, or one timer, only the last is told. A timer that NATS refuses counts as told:
    it must not keep everything else back.
    """
    last = {_about(row): row for row in rows}
    groups: tuple[list[Row[Outbox]], ...] = ([], [], [])
    for row in last.values():
        groups[_turn(row)].append(row)
    told: set[tuple[str, str, object]] = set()
    problem: Exception | None = None
    for group in groups:
        for start in range(0, len(group), TOGETHER):
            reached, problem = await _tell_together(bus, group[start : start + TOGETHER], on_refused)
            told.update(map(_about, reached))
            if problem is not None:
                return _ids(rows, told), problem
    return _ids(rows, told), problem


def _turn(row: Row[Outbox]) -> int:
    """Return when a row is told: handles first, then the other read models, then everything else."""
    return 2 if row.kind not in ("put", "delete") else int(row.target != streams.HANDLES)


def _ids(rows: Sequence[Row[Outbox]], told: set[tuple[str, str, object]]) -> list[int]:
    return [row.id for row in rows if _about(row) in told]


async def _tell_together(
    bus: ServiceBus, rows: Sequence[Row[Outbox]], on_refused: OnRefused
) -> tuple[list[Row[Outbox]], Exception | None]:
    """Tell NATS about rows at once; return those that it has, and a problem."""
    tasks = {asyncio.create_task(_tell_one(bus, row, on_refused)): row for row in rows}
    try:
        _, late = await asyncio.wait(tasks, timeout=TELL)
    finally:
        for task in tasks:
            task.cancel()
    problem: Exception | None = TimeoutError("NATS takes too long") if late else None
    reached = []
    for task in tasks.keys() - late:
        error = task.exception()
        if error is None:
            reached.append(tasks[task])
        elif isinstance(error, BusError):
            problem = error
        else:
            raise error
    return reached, problem


async def _tell_one(bus: ServiceBus, row: Row[Outbox], on_refused: OnRefused) -> None:
    msg_id = f"outbox-{row.id}-{row.created_at.timestamp()}"
    match row.kind:
        case "put":
            await bus.bucket(row.target).put(row.key, row.body)
        case "delete":
            await bus.bucket(row.target).delete(row.key)
        case "untimer":
            await bus.purge(streams.TIMERS.name, row.target)
        case "timer":
            try:
                await bus.store(row.target, row.body, msg_id=msg_id, headers=row.headers)
            except Refused as error:
                on_refused(row, error)
        case _:
            await bus.store(row.target, row.body, msg_id=msg_id)


def _about(row: Row[Outbox]) -> tuple[str, str, object]:
    """Return what a row is about: a key of a bucket, a timer's subject, or an event, which is itself."""
    if row.kind in ("timer", "untimer"):
        return "timer", row.target, ""
    return ("event", row.target, row.id) if row.kind == "event" else ("", row.target, row.key)
