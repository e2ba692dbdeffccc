"""How functions are called, remembered until their workspace's apps change: a call asks no database."""

import time
from collections import OrderedDict
from typing import NamedTuple

from tidemill import exception
from tidemill._bus.protocol import Message
from tidemill._wire import subjects
from tidemill._wire.apps import AppDetails, GetApp
from tidemill._wire.control import FunctionHandle, GetFunction
from tidemill_common.bus.protocol import ServiceBus
from tidemill_gateway.sessions import Session

REMEMBERED = 10.0  # seconds, should the word of a change get lost
MAX_REMEMBERED = 10_000  # functions


class Wanted(NamedTuple):
    """A function by its names. `app` is the name of a deployed app, or any app's id."""

    app: str
    function: str
    environment: str = "main"
    version: int | None = None


class Found(NamedTuple):
    """A function's handle, and the names of its app, whatever it was asked by."""

    handle: FunctionHandle
    app: str
    environment: str


class Handles:
    """The handles of functions that were called lately."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Wanted], tuple[float, Found]] = OrderedDict()
        self._changes = 0

    async def listen(self, bus: ServiceBus) -> None:
        """Forget handles when apps change, and when such news may have been missed."""
        await bus.subscribe(subjects.ALL_APP_EVENTS, self._on_event)
        bus.on_reconnect(self._forget_all)

    async def find(self, session: Session, wanted: Wanted) -> Found:
        """Return the handle of a function. Raises `NotFoundError`, `ServiceError`."""
        key = session.workspace, wanted
        known = self._known.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        changes = self._changes
        found = await _asked(session, wanted)
        if changes == self._changes:  # else what was found may be over already
            self._known[key] = (time.monotonic() + REMEMBERED, found)
            self._known.move_to_end(key)
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _on_event(self, event: Message) -> None:
        workspace = subjects.workspace_of_event(event.subject)
        self._changes += 1
        for key in [key for key in self._known if key[0] == workspace]:
            del self._known[key]

    def _forget_all(self) -> None:
        self._changes += 1
        self._known.clear()


async def _asked(session: Session, wanted: Wanted) -> Found:
    if not wanted.app.startswith("ap-"):
        request = GetFunction(wanted.app, wanted.function, wanted.environment, wanted.version)
        handle = await session.registry("get_function", request, FunctionHandle)
        return Found(handle, wanted.app, wanted.environment)
    details = await session.registry("get_app", GetApp(app_id=wanted.app), AppDetails)
    if wanted.function not in details.handles:
        raise exception.NotFoundError(
            f"the app {wanted.app} has no function {wanted.function!r}",
            hint=f"it has {', '.join(sorted(details.handles)) or 'none'}",
        )
    return Found(details.handles[wanted.function], details.app.name or "", details.app.environment)
