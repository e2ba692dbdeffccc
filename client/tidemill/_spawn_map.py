"""`experimental_spawn_map` and `spawn_map`: many inputs started, nobody waits."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tidemill._map import NO_KWARGS, Family, Inputs, refuse_blocking
from tidemill._single import Later
from tidemill._tracebacks import EDGE

if TYPE_CHECKING:
    import concurrent.futures

    from tidemill.function_call import FunctionCall

R = TypeVar("R")


class SpawnMap(Family[R]):
    """`Function.experimental_spawn_map`."""

    def __call__(self, *input_iterators: Inputs, kwargs: Mapping[str, Any] = NO_KWARGS) -> "FunctionCall[R]":
        """Start the function for every input without waiting, and return the call of all of them.

        Returns once every input is queued; `get(index=...)` and `iter()` of the call give the results.
        """
        with EDGE:
            refuse_blocking(self._name)
            return Later(self._start(input_iterators, kwargs, None), _call).result()

    async def aio(self, *input_iterators: Inputs, kwargs: Mapping[str, Any] = NO_KWARGS) -> "FunctionCall[R]":
        """Do the same and await it."""
        with EDGE:
            return await asyncio.wrap_future(self._start(input_iterators, kwargs, asyncio.get_running_loop()))

    def _start(
        self,
        iterables: tuple[Inputs, ...],
        kwargs: Mapping[str, Any],
        home: asyncio.AbstractEventLoop | None,
    ) -> "concurrent.futures.Future[FunctionCall[R]]":
        from tidemill import _loop
        from tidemill._single import origin
        from tidemill._spawning import spawn_map

        feed = self._feed(iterables, kwargs)
        feed.start(home)
        return _loop.submit(spawn_map(self._function, self._name, feed, origin()))


def _call(call: "FunctionCall[R]") -> "FunctionCall[R]":
    return call


class SpawnMapForEffect(Family[Any]):
    """`Function.spawn_map`."""

    def __call__(self, *input_iterators: Inputs, kwargs: Mapping[str, Any] = NO_KWARGS) -> None:
        """Start the function for every input without waiting. The inputs are queued when it returns.

        Results cannot be read: have the function store them, or use `experimental_spawn_map`.
        """
        with EDGE:
            SpawnMap(self._function, "spawn_map")(*input_iterators, kwargs=kwargs)

    async def aio(self, *input_iterators: Inputs, kwargs: Mapping[str, Any] = NO_KWARGS) -> None:
        """Do the same and await it."""
        with EDGE:
            await SpawnMap(self._function, "spawn_map").aio(*input_iterators, kwargs=kwargs)
