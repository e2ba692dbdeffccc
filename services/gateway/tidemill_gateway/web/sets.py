"""The pools of the sets of parameters that requests name: each set of a class has containers of its own.

    query ──> values ──> known here? ──> its pool
                            └── no ──> the registry finds it, or makes it, or has too many

The registry keeps few sets for URLs, and lets one go that no gateway has asked for within a minute. So
whoever uses one asks again in time: here, for all sets with requests since it was asked last, or with one
under way.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from tidemill import exception
from tidemill._wire.control import FunctionHandle
from tidemill._wire.variants import GetUrlVariant
from tidemill_common.logging import Logger
from tidemill_gateway.sessions import Session, Sessions
from tidemill_gateway.web import parameters
from tidemill_gateway.web.routes import Target

ASK_AGAIN = 15.0  # seconds between two rounds in which the registry is told what is in use
FRESH = 35.0  # seconds after which a set is no longer taken without asking: the registry waits for 60
FULL = 1.0  # seconds for which a class that has too many sets is not asked for about another
ASKING = 16  # questions at once
ASKING_AGAIN = 8  # of them in a round: requests that name a new set do not wait for its end
KNOWN = 10_000  # sets


class _Set:
    """One set of parameters."""

    __slots__ = ("asked", "handle", "open", "used", "values", "workspace")

    def __init__(self, workspace: str, values: dict[str, Any]) -> None:
        self.workspace = workspace
        self.values = values
        self.handle: FunctionHandle | None = None
        self.asked = 0.0  # when the registry was asked last, and said yes
        self.used = False  # since then
        self.open = 0  # requests under way


class Sets:
    """The sets that this process knows."""

    def __init__(self, sessions: Sessions, log: Logger) -> None:
        self._sessions = sessions
        self._log = log
        self._sets: dict[tuple[str, Hashable], _Set] = {}
        self._full: dict[str, tuple[float, exception.Error]] = {}  # by pool: until when, and why
        self._asking = asyncio.Semaphore(ASKING)
        self._locks: dict[tuple[str, Hashable], asyncio.Lock] = {}  # of sets that are asked about now

    @asynccontextmanager
    async def target(self, target: Target, query: bytes) -> AsyncIterator[Target]:
        """Give the target of a request that names parameters, and keep its pool for as long as it takes.

        Raises:
            Problem: they cannot be what they are.
            ResourceExhaustedError: the class has as many sets in use as it may.
            ServiceError: the registry cannot be asked.
        """
        route = target.route
        values = parameters.of_query(route.function, route.parameters, query)
        if not values:
            yield target
            return
        key = route.pool, tuple(values.items())
        found = await self._find(key, route.workspace, values)
        assert found.handle is not None
        found.open += 1
        try:
            handle = found.handle.of_method(route.method)
            yield target._replace(handle=handle)
        finally:
            found.open -= 1
            found.used = True

    async def _find(self, key: tuple[str, Hashable], workspace: str, values: dict[str, Any]) -> _Set:
        found = self._sets.get(key)
        if found is not None and time.monotonic() - found.asked < FRESH:
            return found
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                found = self._sets.get(key) or _Set(workspace, values)
                if found.handle is None or time.monotonic() - found.asked >= FRESH:
                    await self._ask(key[0], found)
                    self._sets[key] = found
        finally:
            if not lock.locked():
                self._locks.pop(key, None)
        return found

    async def _ask(self, pool: str, one: _Set) -> None:
        """Have the registry say where a set is."""
        until, why = self._full.get(pool, (0.0, None))
        if why is not None and one.handle is None and time.monotonic() < until:
            raise exception.ResourceExhaustedError(str(why), hint=why.hint)
        async with self._asking:
            session = await self._sessions.of(one.workspace)
            try:
                handle = await _answer(session, pool, one)
            except exception.ResourceExhaustedError as error:
                self._full[pool] = time.monotonic() + FULL, error
                raise
        self._full.pop(pool, None)
        one.handle, one.asked, one.used = handle, time.monotonic(), False

    async def run(self) -> None:
        """Tell the registry for ever what is in use."""
        while True:
            await asyncio.sleep(ASK_AGAIN)
            now = time.monotonic()
            self._full = {pool: full for pool, full in self._full.items() if full[0] > now}
            in_use = [(key[0], one) for key, one in self._sets.items() if one.used or one.open]
            for key, one in list(self._sets.items()):
                if not (one.used or one.open) and (now - one.asked >= FRESH or len(self._sets) > KNOWN):
                    del self._sets[key]
            await self._tell(in_use)

    async def _tell(self, in_use: Iterable[tuple[str, _Set]]) -> None:
        """Ask about sets again, several at once: one after the other, thousands would take too long."""
        left = iter(in_use)

        async def ask() -> None:
            for pool, one in left:
                await self._ask_again(pool, one)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(ASKING_AGAIN):
                tasks.create_task(ask())

    async def _ask_again(self, pool: str, one: _Set) -> None:
        one.used = False  # whatever the answer is: what is gone must not be asked about for ever
        try:
            await self._ask(pool, one)
        except exception.Error as error:
            self._log.warning("a set of parameters cannot be kept in use", pool=pool, error=str(error))


async def _answer(session: Session, pool: str, one: _Set) -> FunctionHandle:
    return await session.registry("get_url_variant", GetUrlVariant(pool, one.values), FunctionHandle)
