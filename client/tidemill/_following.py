"""Functions found by name, which follow the deployments of their app for as long as this process lives.

    first use ─> look up ─> handle, used at once
                   └─> listen to the app's events; soon look up once more, for what came in between

    `published` ─> look up again ─> new calls go to the new version; those under way finish where they are
    `stopped`   ─> forget ─> the next call looks up, and finds nothing or another app of that name

After a reconnect everything is looked up again: events may have been missed. A call itself never asks: it
takes the handle that its function has. What is pinned to a version is looked up once and not followed.
"""

import asyncio
import dataclasses
import logging
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from tidemill import _loop, config, exception
from tidemill._bus.protocol import BusError, Message, Subscription
from tidemill._wire import coding, subjects
from tidemill._wire.control import AppEvent, FunctionHandle, GetFunction

if TYPE_CHECKING:
    from tidemill._caller import Caller
    from tidemill._client import Client
    from tidemill._handled import Handled, Lookup

APPS = 1_000  # followed at once; beyond it those that were looked up first are forgotten
LOOKUPS = 8  # at once
SOON = 0.2  # seconds: who makes one call and ends does not ask twice, and the first call is not held up
PAUSE, PAUSE_MAX = 0.5, 30.0  # seconds until a look-up that failed is tried again

_log = logging.getLogger("tidemill")


class _Found:
    """What a look-up found, and the functions of this process that came by it."""

    def __init__(self, handle: FunctionHandle) -> None:
        self.handle = handle
        self.functions: weakref.WeakSet[Handled] = weakref.WeakSet()

    def take(self, handle: FunctionHandle | None) -> None:
        """Give all of them another handle."""
        if handle is not None:
            self.handle = handle
        for function in list(self.functions):
            function._handle = handle


async def find(
    client: "Client", function: "Handled", lookup: "Lookup", *, refresh: bool = False
) -> FunctionHandle:
    """Return the handle of a function, and have the function follow its app's deployments.

    With `refresh` the registry is asked even if the answer is known.

    Raises:
        NotFoundError: there is none.
        ConnectionError: no server runs.
    """
    if not lookup.function_id:
        client.check_lasting()  # a stack that starts for this is empty
        lookup = dataclasses.replace(lookup, environment=config.environment(lookup.environment))
    if lookup.version is not None:
        return await look_up(client, lookup)
    return await _of(client, await client.connect()).find(function, lookup, refresh=refresh)


async def look_up(client: "Client", lookup: "Lookup") -> FunctionHandle:
    """Ask the registry."""
    message = GetFunction(
        lookup.app_name, lookup.name, lookup.environment, lookup.version, lookup.function_id, lookup.like
    )
    try:
        return await client.request("registry", "get_function", message, FunctionHandle)
    except exception.NotFoundError as error:
        if lookup.function_id:
            raise exception.NotFoundError(
                f"there is no function {lookup.function_id}", hint=error.hint
            ) from error
        raise exception.NotFoundError(
            f"there is no function {lookup.name!r} in an app {lookup.app_name!r} of the environment "
            f"{lookup.environment!r}",
            hint=error.hint,
        ) from error


async def changed(client: "Client", app_id: str) -> None:
    """Look an app's functions up that are followed: this process has just changed it."""
    caller = await client.connect()
    if caller in _sessions:
        await _sessions[caller].look_again(app_id)


class Following:
    """Everything that one session follows. It ends with the session, or in a fork: then all is forgotten."""

    def __init__(self, client: "Client", caller: "Caller") -> None:
        self._client = client
        self._caller = caller
        self._found: dict[Lookup, _Found] = {}
        self._apps: dict[str, _App] = {}
        self._told = 0  # events and reconnects so far
        self._room = asyncio.Semaphore(LOOKUPS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._undo = caller.bus.on_reconnect(self._reconnected)
        caller.at_close(self._close)
        _loop.on_fork(self)

    async def find(self, function: "Handled", lookup: "Lookup", *, refresh: bool) -> FunctionHandle:
        """Return the handle that a look-up finds, known or asked for."""
        found = self._found.get(lookup)
        if found is None or refresh:
            told = self._told
            handle = await look_up(self._client, lookup)
            found = self._found.setdefault(lookup, _Found(handle))
            found.take(handle)
            self._follow(lookup, handle, again=told != self._told)
        found.functions.add(function)
        return found.handle

    async def look_again(self, app_id: str) -> None:
        """Look up what is followed of an app, now."""
        if (app := self._apps.get(app_id)) is not None:
            self._told += 1
            await self._look_again(app)

    def _follow(self, lookup: "Lookup", handle: FunctionHandle, *, again: bool) -> None:
        app = self._apps.get(handle.app_id)
        if app is None:
            while len(self._apps) >= APPS:
                self._forget(next(iter(self._apps.values())))
            app = self._apps[handle.app_id] = _App(handle.app_id)
            app.task = asyncio.create_task(self._keep_up(app), name=f"follow {handle.app_id}")
            self._tasks.add(app.task)
            app.task.add_done_callback(self._tasks.discard)
        app.lookups.add(lookup)
        if again:
            app.stale.set()

    # --- one app

    async def _keep_up(self, app: "_App") -> None:
        """Listen, and look up again whenever something may have changed."""
        try:
            app.subscription = await self._listen(app)
            with suppress(TimeoutError):
                await asyncio.wait_for(app.stale.wait(), SOON)
            pause = PAUSE
            while True:
                answered = await self._look_again(app)
                if not app.lookups:
                    return
                if answered:
                    pause = PAUSE
                    await app.stale.wait()
                else:
                    await asyncio.sleep(pause)
                    pause = min(PAUSE_MAX, pause * 2)
        finally:
            if self._apps.get(app.id) is app:
                del self._apps[app.id]
            if app.subscription is not None:
                with suppress(BusError):
                    await app.subscription.close()

    async def _listen(self, app: "_App") -> Subscription:
        pause = PAUSE
        while True:
            try:
                return await self._caller.bus.subscribe(
                    subjects.event(self._caller.workspace, "app", app.id),
                    lambda message: self._on_event(app, message),
                )
            except BusError as error:
                _log.debug("deployments of %s cannot be heard: %s", app.id, error)
            await asyncio.sleep(pause)
            pause = min(PAUSE_MAX, pause * 2)

    def _on_event(self, app: "_App", message: Message) -> None:
        self._told += 1
        try:
            event = coding.decode(AppEvent, message.data)
        except ValueError as error:
            _log.debug("an event that cannot be read: %s", error)
            app.stale.set()
            return
        if event.state == "stopped":
            self._forget(app)
        else:
            app.stale.set()

    async def _look_again(self, app: "_App") -> bool:
        """Look all of an app's functions up; return whether the registry told about every one."""
        async with app.looking:
            app.stale.clear()
            answered = await asyncio.gather(*(self._refresh(app, lookup) for lookup in list(app.lookups)))
        return all(answered)

    async def _refresh(self, app: "_App", lookup: "Lookup") -> bool:
        try:
            async with self._room:
                handle = await look_up(self._client, lookup)
        except exception.NotFoundError:
            self._drop(app, lookup)
        except exception.Error as error:
            _log.debug("%s cannot be looked up now: %s", lookup, error)
            return False
        else:
            found = self._found.get(lookup)
            if found is not None and handle != found.handle:
                found.take(handle)
            if handle.app_id != app.id:  # the name went over to another app
                app.lookups.discard(lookup)
                self._follow(lookup, handle, again=True)
        return True

    def _drop(self, app: "_App", lookup: "Lookup") -> None:
        """Forget what a look-up found: the next call asks."""
        app.lookups.discard(lookup)
        if (found := self._found.pop(lookup, None)) is not None:
            found.take(None)

    def _forget(self, app: "_App") -> None:
        self._apps.pop(app.id, None)
        for lookup in list(app.lookups):
            self._drop(app, lookup)
        if app.task is not None:
            app.task.cancel()

    # --- the session

    async def _close(self) -> None:
        self._undo()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._forget_all()

    def _reconnected(self) -> None:
        self._told += 1
        for app in self._apps.values():
            app.stale.set()

    def _forget_all(self) -> None:
        for found in self._found.values():
            found.take(None)
        self._found.clear()
        _sessions.pop(self._caller, None)

    def forked(self) -> None:
        """Let functions look themselves up in the child, where nobody listens."""
        self._forget_all()


class _App:
    """One app that is followed, with the look-ups that found functions of it."""

    def __init__(self, app_id: str) -> None:
        self.id = app_id
        self.lookups: set[Lookup] = set()
        self.stale = asyncio.Event()
        self.looking = asyncio.Lock()
        self.subscription: Subscription | None = None
        self.task: asyncio.Task[None] | None = None


_sessions: "dict[Caller, Following]" = {}


def _of(client: "Client", caller: "Caller") -> Following:
    """Return what a session follows."""
    following = _sessions.get(caller)
    if following is None:
        following = _sessions[caller] = Following(client, caller)
    return following
