"""How much may wait for one workspace: who has too much hears it, and adds nothing until there is room.

The streams of inputs are everybody's. Their own limit is of bytes and for all; this one keeps a workspace
from using it up. Callers are told, for moments, and refuse what they are given: nothing that was accepted
is ever given up. What is counted is what the pools' loops have seen, so that no stream is asked for it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from tidemill._bus.protocol import BusError
from tidemill._wire import coding, subjects
from tidemill._wire.control import FULL_FOR, Trouble
from tidemill_scheduler.replica import Replica

TELL_EVERY = FULL_FOR / 3  # seconds: one word may get lost

HINT = "wait until inputs have been worked off; the scheduler's TIDEMILL_MAX_QUEUED is the bound"


class Backlog(NamedTuple):
    """What waits or runs in one pool, in messages."""

    workspace: str
    pool: str
    messages: int


def overfull(backlogs: Iterable[Backlog], most: int) -> Iterator[tuple[Backlog, int]]:
    """Yield the pools of workspaces for which more than `most` messages wait, and how many do."""
    backlogs = list(backlogs)
    waiting: Counter[str] = Counter()
    for backlog in backlogs:
        waiting[backlog.workspace] += backlog.messages
    for backlog in backlogs:
        if waiting[backlog.workspace] > most:
            yield backlog, waiting[backlog.workspace]


async def watch(replica: Replica, backlogs: Callable[[], Iterable[Backlog]]) -> None:
    """Tell the callers of workspaces that have too much waiting, for ever."""
    while True:
        await asyncio.sleep(TELL_EVERY)
        for backlog, waiting in overfull(backlogs(), replica.max_queued):
            message = f"{waiting:,} messages of inputs wait for the workspace, {replica.max_queued:,} may"
            trouble = Trouble(backlog.pool, message, HINT, full=True)
            with suppress(BusError):  # then nobody can add anything either
                subject = subjects.trouble(backlog.workspace, backlog.pool)
                replica.bus.publish(subject, coding.encode(trouble))
