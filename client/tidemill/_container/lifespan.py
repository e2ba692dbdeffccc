"""The lifespan of an ASGI app: begun before its container is ready, ended when the container ends."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from tidemill import exception
from tidemill._container import outcomes

Message = MutableMapping[str, Any]
App = Callable[[dict[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any]

VERSIONS = {"version": "3.0", "spec_version": "2.0"}
SHUTDOWN = 25.0  # seconds, within those that the worker gives to everything at the end


class Lifespan:
    """One app's lifespan on the loop that runs its requests. `state` is what it gives to them.

    An app that raises at the mere mention of a lifespan has none, which is no error.
    """

    def __init__(self, app: App) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answered = asyncio.Event()
        self._failure: str | None = None
        self._is_supported = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the app has started; `ExecutionError` if it says that it cannot."""
        self._task = asyncio.create_task(self._run(), name="lifespan")
        await self._tell("lifespan.startup")
        if self._failure is not None:
            raise exception.ExecutionError(f"the app did not start: {self._failure}".rstrip(": \n"))

    async def stop(self) -> None:
        """Return when the app has shut down, or takes too long for it."""
        if self._task is None or self._task.done() or not self._is_supported:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN):
                await self._tell("lifespan.shutdown")
                await asyncio.wait((self._task,))

    async def _tell(self, event: str) -> None:
        self._answered.clear()
        self._events.put_nowait({"type": event})
        await self._answered.wait()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": VERSIONS, "state": self.state}
        try:
            await self._app(scope, self._events.get, self._send)
        except BaseException as error:
            if self._is_supported or self._failure is not None:
                outcomes.show(error)
        finally:
            self._answered.set()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._is_supported = True
        elif kind == "lifespan.startup.failed":
            self._failure = str(message.get("message", ""))
        elif kind == "lifespan.shutdown.failed":
            told = f"the app did not end in order: {message.get('message', '')}"
            sys.stderr.write(told.rstrip(": \n") + "\n")
        self._answered.set()
