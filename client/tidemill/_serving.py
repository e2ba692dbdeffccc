"""An app that is served while its code is written: a run whose functions follow the files.

    a file changes -> a fresh process imports the code and stores it -> the run's functions are replaced

Nothing that goes wrong on the way ends the run: what was published last goes on being served.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill import _running, exception
from tidemill._changes import Changes
from tidemill._output import Output
from tidemill._plan import Plan, tree
from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import FunctionSpec

if TYPE_CHECKING:
    from tidemill._client import Client

SHOWN = 3  # changed files that are named


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a fresh process made of the code. Everything that `specs` name is on the server already.

    `paths` are the files and folders that it was made from; `begun` is the unix time at which it was begun.
    """

    name: str | None
    description: str
    environment: str
    tags: dict[str, str]
    specs: tuple[FunctionSpec, ...]
    paths: tuple[str, ...]
    begun: float

    def plan(self) -> Plan:
        """Return the plan of it, of which nothing is left to be stored."""
        return Plan(self.name, self.description, self.tags, self.specs, {}, {}, {}, self.environment)


Load = Callable[[], Awaitable[Loaded | None]]  # None: it could not be imported, which was shown


@contextlib.asynccontextmanager
async def serve(load: Load, client: "Client", output: Output) -> AsyncIterator["Served | None"]:
    """Serve an app while this context is open; None if already the first import fails."""
    await client.connect()
    first = await load()
    if first is None:
        yield None
        return
    changes = Changes()
    try:
        async with _running.run(first.plan(), client, output, send=_as_it_is) as running:
            served = Served(load, running, changes, output)
            await served.begin(first)
            yield served
    finally:
        await changes.close()


async def _as_it_is(plan: Plan, _client: "Client") -> Sequence[FunctionSpec]:
    return plan.specs


class Served:
    """A run that follows its files."""

    def __init__(self, load: Load, running: _running.Running, changes: Changes, output: Output) -> None:
        self._load = load
        self._running = running
        self._changes = changes
        self._output = output
        self._handles: Mapping[str, FunctionHandle] = running.handles

    async def begin(self, first: Loaded) -> None:
        """Say what is served, and watch the files that it comes from."""
        await self._follow(first)
        self._output.status("")
        self._output.line("✓ Serving, and following changes of its files. Press Ctrl-C to stop.")

    async def wait(self, timeout: float | None = None) -> bool:
        """Follow the files until `timeout` seconds are over; False if the app was stopped by somebody."""
        following = asyncio.create_task(self._follow_changes(), name="follow changes")
        try:
            ended = (following, self._running.over)
            await asyncio.wait(ended, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            following.cancel()
            await asyncio.wait((following,))
        if not following.cancelled():
            following.result()
        return not self._running.over.done()

    async def _follow_changes(self) -> None:
        """Begin anew at every change, also while the code before is still being imported."""
        reload: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                changed = await self._changes.next()
                if reload is not None:
                    reload.cancel()
                    await asyncio.wait((reload,))
                reload = group.create_task(self._reload(changed), name="reload")

    async def _reload(self, changed: Iterable[Path]) -> None:
        self._output.line(f"Reloading: {_named(changed)} changed")
        loaded = await self._load()
        if loaded is None:
            self._output.warn("the version before goes on being served", "mend the code and save it again")
            return
        await self._follow(loaded)
        try:
            handles = await self._running.publish(loaded.specs)
        except exception.Error as error:
            self._output.warn(f"the new version cannot be served: {error}", error.hint)
            return
        self._tell(loaded, handles)

    def _tell(self, loaded: Loaded, handles: Mapping[str, FunctionHandle]) -> None:
        before, self._handles = self._handles, handles
        if {name: handle.pool for name, handle in before.items()} == {
            name: handle.pool for name, handle in handles.items()
        }:
            self._output.line("✓ Nothing to replace: the functions are what they were.")
            return
        for name in sorted(before.keys() - handles.keys()):
            self._output.line(f"✓ Removed function {name}.")
        self._output.line("\n".join(tree(loaded.plan(), handles)))

    async def _follow(self, loaded: Loaded) -> None:
        await self._changes.follow([Path(path) for path in loaded.paths], loaded.begun)


def _named(paths: Iterable[Path]) -> str:
    names = sorted({path.name for path in paths})
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
