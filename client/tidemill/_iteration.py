"""One iteration over what a call yields: from where it is iterated to the SDK's loop and back."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from tidemill import _client, _loop
from tidemill._channel import Channel
from tidemill._outcome import End
from tidemill._single import origin

if TYPE_CHECKING:
    from tidemill._caller import Caller
    from tidemill._wire.control import FunctionHandle
    from tidemill.functions import Function


class Closable(Protocol):
    """A call that can be ended on the loop."""

    def close(self) -> None:
        """End it: nobody takes what it yields any more."""


class Iteration:
    """Starts a call on the loop and holds the channel that its outputs come through."""

    def __init__(
        self, function: "Function[Any, Any, Any]", name: str, home: asyncio.AbstractEventLoop | None
    ) -> None:
        """Start it for a taker on the event loop `home`, or for one that blocks its thread."""
        self.channel: Channel[End] = Channel(home)
        self.origin = origin()
        self._function = function
        self._name = name
        self._call: Closable | None = None
        self._client = _client.current(function._client)
        self._loop = _loop.get()
        self._starting = _loop.submit(self._start())

    async def _start(self) -> None:
        try:
            caller = await self._client.connect()
            handle = await self._function._find(self._client)
            self._check(handle)
            self._call = await self._begin(caller, handle)
        except Exception as error:
            self.channel.end(error)

    def _check(self, handle: "FunctionHandle") -> None:
        self._function._check_callable(handle, self._name)

    async def _begin(self, caller: "Caller", handle: "FunctionHandle") -> Closable:
        raise NotImplementedError

    def close(self) -> None:
        """End what is still under way. Called where it is iterated."""
        self._starting.cancel()
        with suppress(RuntimeError):  # the loop is closed, and the call with it
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if self._call is not None:
            self._call.close()
