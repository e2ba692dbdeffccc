"""When output that is followed has come to its end: its app was stopped, or its container ended.

That is heard as an event. What was true before anybody listened, and what was missed while the connection
was away, is asked for.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from tidemill import exception
from tidemill._bus.protocol import BusError, Message
from tidemill._caller import explain
from tidemill._wire import coding, subjects
from tidemill._wire.containers import ContainerList
from tidemill._wire.control import AppEvent
from tidemill._wire.scheduling import ContainerEvent

if TYPE_CHECKING:
    from tidemill._caller import Caller

REPORTED = 1.0  # seconds after which a container that runs is in its worker's report, at the latest


class Ending(NamedTuple):
    """How an end is heard: by an event of a `kind` that `ends`, or by asking whether it `is_over`."""

    kind: str
    app_id: str
    ends: Callable[[bytes], bool]
    is_over: Callable[[], Awaitable[bool]]


def app_ending(app_id: str, is_stopped: Callable[[], Awaitable[bool]]) -> Ending:
    """Return the end of an app: when it is stopped."""
    return Ending("app", app_id, lambda data: coding.decode(AppEvent, data).state == "stopped", is_stopped)


def container_ending(app_id: str, container: str, running: Callable[[], Awaitable[ContainerList]]) -> Ending:
    """Return the end of a container. Its event comes behind all that it printed."""

    def ends(data: bytes) -> bool:
        event = coding.decode(ContainerEvent, data)
        return event.container == container and event.state != "started"

    async def is_listed() -> bool:
        return any(one.container == container for one in (await running()).containers)

    async def is_gone() -> bool:
        if await is_listed():
            return False
        await asyncio.sleep(REPORTED)  # it may have started just now
        return not await is_listed()

    return Ending("container", app_id, ends, is_gone)


@asynccontextmanager
async def until_over(caller: "Caller", ending: Ending) -> AsyncIterator[Callable[[], bool]]:
    """Listen for an end; the function that is given says whether it has come."""
    over = asyncio.Event()

    def on_event(message: Message) -> None:
        with suppress(ValueError):
            if ending.ends(message.data):
                over.set()

    async def look() -> None:
        if await ending.is_over():
            over.set()

    async def look_again() -> None:
        with suppress(exception.Error):  # not connected again: then this comes again too
            await look()

    def on_reconnect() -> None:
        caller.run(look_again(), name=f"look for the end of {ending.app_id}")

    subject = subjects.event(caller.workspace, ending.kind, ending.app_id)
    try:
        subscription = await caller.bus.subscribe(subject, on_event)
    except BusError as error:
        raise explain(error) from error
    undo = caller.bus.on_reconnect(on_reconnect)
    try:
        await look()
        yield over.is_set
    finally:
        undo()
        with suppress(BusError):
            await subscription.close()
