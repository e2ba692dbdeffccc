"""The caller's side of an interactive run: it lends its terminal to one input at a time."""

import asyncio
import os
from contextlib import suppress

from tidemill import _console, exception
from tidemill._bus.protocol import Bus, Message, Subscription
from tidemill._duplex import on_bus
from tidemill._output import Output
from tidemill._wire import coding, subjects
from tidemill._wire.containers import AskTerminal

LAST_WORDS = 2.0  # seconds for the output of an input whose end is known already


class Lender:
    """Answers the containers of one app that ask for the terminal of this process."""

    def __init__(self, bus: Bus, workspace: str, app_id: str, shown: Output) -> None:
        self._bus = bus
        self._workspace = workspace
        self._subject = subjects.terminal(workspace, app_id)
        self._shown = shown
        self._subscription: Subscription | None = None
        self._lent: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to answer."""
        self._subscription = await self._bus.subscribe(self._subject, self._on_ask)

    async def close(self, *, at_once: bool) -> None:
        """Answer no more, and take the terminal back; an input that has just ended may say its last words."""
        if self._subscription is not None:
            await self._subscription.close()
        if self._lent is not None and not at_once:
            await asyncio.wait((self._lent,), timeout=LAST_WORDS)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _on_ask(self, message: Message) -> None:
        try:
            asked = coding.decode(AskTerminal, message.data)
        except ValueError as error:
            self._shown.warn(f"what a container asks cannot be read: {error}")
            return
        is_lent = self._lent is not None and not self._lent.done()
        task = asyncio.create_task(self._refuse(asked) if is_lent else self._lend(asked), name="terminal")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not is_lent:
            self._lent = task

    async def _refuse(self, asked: AskTerminal) -> None:
        with suppress(exception.Error):
            async with on_bus(self._bus, self._workspace, asked.stream, is_client=True) as stream:
                stream.abort(exception.ConflictError("another input of this run has the terminal"))

    async def _lend(self, asked: AskTerminal) -> None:
        """Connect the terminal with the input that asked for it, until the input has ended."""
        try:
            async with on_bus(self._bus, self._workspace, asked.stream, is_client=True) as stream:
                stream.open()
                with self._shown.lent():
                    stream.control("lend", [*_console.size(), os.environ.get("TERM", "")])
                    await _console.attach(stream, terminal=True)
        except exception.Error as error:
            self._shown.warn(f"the terminal is no longer connected with {asked.container}: {error}")
