"""A further process in a running container, with this process's standard streams as its own."""

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidemill import _console, exception
from tidemill._duplex import Duplex, on_bus
from tidemill._wire import ids
from tidemill._wire.containers import Execute
from tidemill._wire.control import Done
from tidemill._wire.duplex import PIECE_TO_CONTAINER

if TYPE_CHECKING:
    from tidemill._client import Client

OPEN_TIMEOUT = 20.0  # seconds for the process to be started

_LOST = 1  # exit status where nobody knows it
_BY_SIGNAL = 128  # what shells add to the number of the signal that ended a process


class Process:
    """A process that is to be run. It ends with this one, at the latest when nothing is heard from here."""

    def __init__(self, client: "Client", container: str, arguments: Sequence[str], *, terminal: bool) -> None:
        self._client = client
        self._container = container
        self._arguments = tuple(arguments)
        self._terminal = terminal
        self._stream: Duplex | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left = 0  # the signal for which this side has left

    async def run(self) -> int:
        """Run it and return its exit status, 128 and the number where a signal has ended it.

        Raises:
            NotFoundError: the container does not run.
            InteractiveTimeoutError: the process was not started in time.
            Error: the connection with it is lost.
        """
        caller = await self._client.connect()
        stream_id = ids.new(ids.STREAM)
        held = on_bus(caller.bus, caller.workspace, stream_id, is_client=True, piece=PIECE_TO_CONTAINER)
        async with held as stream:
            await self._start(stream_id)
            stream.open()
            self._loop, self._stream = asyncio.get_running_loop(), stream
            try:
                status = await _console.attach(stream, terminal=self._terminal)
            except exception.Error:
                if not self._left:
                    raise
                status = -self._left
        if not isinstance(status, int):
            return _LOST
        return status if status >= 0 else _BY_SIGNAL - status

    async def _start(self, stream_id: str) -> None:
        rows, columns = _console.size() if self._terminal else (0, 0)
        variables = {"TERM": os.environ.get("TERM", "xterm")} if self._terminal else {}
        order = Execute(self._container, stream_id, self._arguments, variables, rows=rows, columns=columns)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                await self._client.request("scheduler", "execute", order, Done)
        except TimeoutError:
            message = f"the process was not started within {OPEN_TIMEOUT:.0f} s"
            raise exception.InteractiveTimeoutError(message) from None

    def signal(self, number: int) -> bool:
        """Send a signal to the process; return whether there is one. From any thread."""
        if self._loop is None or self._stream is None or self._stream.is_over:
            return False
        self._loop.call_soon_threadsafe(self._stream.control, "signal", number)
        return True

    def leave(self, number: int) -> bool:
        """Give the process up, for a signal that came here; return whether there is one. From any thread."""
        if self._loop is None or self._stream is None or self._left:
            return False
        self._left = number
        self._loop.call_soon_threadsafe(self._stream.close)
        return True
