"""Containers that are there before anybody calls them: those of a version that is about to serve."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from tidemill._wire.scheduling import CountReady, MakeReady, ReadyCounts
from tidemill._wire.specs import Autoscaling
from tidemill_scheduler.workers import Fleet

MAX_SECONDS = 60.0  # for which a pool is kept warm that nobody calls


@dataclass(slots=True)
class Warm:
    """So many containers of a pool, until then; `done` when they are ready, or cannot be."""

    count: int
    until: float
    done: asyncio.Event = field(default_factory=asyncio.Event)


def joined(kept: Warm | None, wanted: Warm) -> Warm:
    """Return what serves both; who waits for the first already waits for both."""
    if kept is None:
        return wanted
    done = wanted.done if kept.done.is_set() else kept.done
    return Warm(max(kept.count, wanted.count), max(kept.until, wanted.until), done)


def raised(limits: Autoscaling, count: int) -> Autoscaling:
    """Return limits that keep so many containers, as far as a pool may have them."""
    most = limits.max_containers
    wanted = count if most is None else min(count, most)
    return replace(limits, min_containers=max(limits.min_containers, wanted))


class Scaled(Protocol):
    """A pool's loop, as far as this needs it."""

    def warm(self, count: int, seconds: float) -> Warm:
        """Keep so many containers for a while."""


class Warming:
    """Answers what the registry asks before a version serves."""

    def __init__(self, fleet: Fleet, find: Callable[[str], Awaitable[Scaled | None]]) -> None:
        self._fleet = fleet
        self._find = find

    async def count(self, request: CountReady) -> ReadyCounts:
        """Answer `tm.internal.scheduler.count_ready`."""
        return self._counts(request.pools)

    async def make(self, request: MakeReady) -> ReadyCounts:
        """Answer `tm.internal.scheduler.make_ready`."""
        seconds = max(0.0, min(request.seconds, MAX_SECONDS))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                found = await asyncio.gather(*map(self._find, request.wanted))
                counts = request.wanted.values()
                kept = [one.warm(count, seconds) for one, count in zip(found, counts, strict=True) if one]
                await asyncio.gather(*(warm.done.wait() for warm in kept))
        return self._counts(request.wanted)

    def _counts(self, pools: Iterable[str]) -> ReadyCounts:
        return ReadyCounts({pool: self._fleet.ready(pool) for pool in pools})
