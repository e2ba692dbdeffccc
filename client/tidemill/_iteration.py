"""One iteration over what a call yields: from where it is iterated to the SDK's loop and back."""

import asyncio
import concurrent.futures
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tidemill import _client, _loop
from tidemill._channel import Channel
from tidemill._outcome import End
from tidemill._single import origin
from tidemill._tracebacks import EDGE

if TYPE_CHECKING:
    from tidemill._caller import Caller
    from tidemill._wire.control import FunctionHandle
    from tidemill.functions import Function

T = TypeVar("T")


class Closable(Protocol):
    """A call that can be ended on the loop."""

    def close(self) -> None:
        """End it: nobody takes what it yields any more."""


class Iteration:
    """Starts a call on the loop when it is first iterated, and takes what comes back, here or there."""

    channel: Channel[End]
    origin: tuple[str, str]

    def __init__(self, function: "Function[Any, Any, Any]", name: str) -> None:
        self._function = function
        self._name = name
        self._call: Closable | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: concurrent.futures.Future[None] | None = None

    # --- where it is iterated

    def each(self, read: Callable[[End], T]) -> Generator[T, None, None]:
        """Yield what `read` makes of each output, blocking for each batch of them."""
        try:
            with EDGE:
                self._open(None)
                while ends := self.channel.take():
                    for end in ends:
                        yield read(end)
        finally:
            self._close()

    async def each_async(self, read: Callable[[End], T]) -> AsyncGenerator[T, None]:
        """Do the same on an event loop."""
        try:
            with EDGE:
                self._open(asyncio.get_running_loop())
                while ends := await self.channel.take_async():
                    for end in ends:
                        yield read(end)
        finally:
            self._close()

    def _open(self, home: asyncio.AbstractEventLoop | None) -> None:
        """Begin, for a taker on the event loop `home` or for one that blocks its thread."""
        self.channel = Channel(home)
        self.origin = origin()
        client = _client.current(self._function._client)
        self._loop = _loop.get()
        self._starting = _loop.submit(self._start(client))

    def _close(self) -> None:
        """End what is still under way."""
        if self._starting is not None and self._loop is not None:
            self._starting.cancel()
            with suppress(RuntimeError):  # the loop is closed, and the call with it
                self._loop.call_soon_threadsafe(self._close_call)

    # --- on the loop

    async def _start(self, client: "_client.Client") -> None:
        try:
            caller = await client.connect()
            handle = await self._function._find(client)
            self._check(handle)
            self._call = await self._begin(caller, handle)
        except Exception as error:
            self.channel.end(error)

    def _check(self, handle: "FunctionHandle") -> None:
        self._function._check_callable(handle, self._name)

    async def _begin(self, caller: "Caller", handle: "FunctionHandle") -> Closable:
        raise NotImplementedError

    def _close_call(self) -> None:
        if self._call is not None:
            self._call.close()
