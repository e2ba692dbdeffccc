"""The caller's side of an interactive run: it lends its terminal to one input at a time."""

import asyncio
import os

from tidemill import _console, exception
from tidemill._bus.protocol import Bus, BusError, Message, Subscription
from tidemill._duplex import on_bus
from tidemill._output import Output
from tidemill._wire import coding, subjects
from tidemill._wire.control import AskTerminal, TerminalAnswer

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

    async def open(self) -> None:
        """Begin to answer."""
        self._subscription = await self._bus.subscribe(self._subject, self._on_ask)

    async def close(self, *, at_once: bool) -> None:
        """Answer no more, and take the terminal back; an input that has just ended may say its last words."""
        if self._subscription is not None:
            await self._subscription.close()
        if self._lent is not None:
            if not at_once:
                await asyncio.wait((self._lent,), timeout=LAST_WORDS)
            self._lent.cancel()
            await asyncio.wait((self._lent,))

    def _on_ask(self, message: Message) -> None:
        try:
            asked = coding.decode(AskTerminal, message.data)
        except ValueError as error:
            self._answer(message.reply, TerminalAnswer(accepted=False, reason=str(error)))
            return
        if self._lent is not None and not self._lent.done():
            reason = "another input of this run has the terminal: only one at a time can"
            self._answer(message.reply, TerminalAnswer(accepted=False, reason=reason))
            return
        self._lent = asyncio.create_task(self._lend(asked, message.reply), name="lent terminal")

    def _answer(self, reply: str, answer: TerminalAnswer) -> None:
        try:
            self._bus.publish(reply, coding.encode(answer))
        except BusError as error:
            self._shown.warn(f"a container cannot be answered: {error}")

    async def _lend(self, asked: AskTerminal, reply: str) -> None:
        """Connect the terminal with the input that asked for it, until the input has ended."""
        try:
            async with on_bus(self._bus, self._workspace, asked.stream, opener=False) as stream:
                rows, columns = _console.size()
                term = os.environ.get("TERM", "")
                stream.open()
                with self._shown.lent():
                    self._answer(reply, TerminalAnswer(True, "", rows, columns, term))
                    await _console.attach(stream, terminal=True)
        except exception.Error as error:
            self._shown.warn(f"the terminal is no longer connected with {asked.container}: {error}")
