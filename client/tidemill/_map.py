"""`map` and its relatives, as they hang on a function.

    for value in f.map(xs): ...            blocks for each batch of results
    async for value in f.map.aio(xs): ...  the same on an event loop; `f.map(xs)` can be used so too

Nothing is sent before the iteration begins. Inputs are read and encoded in a thread (or on the caller's
loop, if they are async), sent and matched on the SDK's loop, and decoded where they are taken.
"""

import asyncio
import logging
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from tidemill import _sync, exception
from tidemill._iteration import Iteration
from tidemill._outcome import End

if TYPE_CHECKING:
    from tidemill._caller import Caller
    from tidemill._feed import Feed
    from tidemill._map_call import MapCall
    from tidemill._wire.control import FunctionHandle
    from tidemill.functions import Function

R = TypeVar("R")

Inputs = Iterable[Any] | AsyncIterable[Any]

_log = logging.getLogger("tidemill")
NO_KWARGS: Mapping[str, Any] = {}


def refuse_blocking(name: str) -> None:
    """Raise where a blocking map would stop a running event loop."""
    if _sync.in_event_loop():
        raise exception.InvalidError(
            f"{name} blocks the running event loop", hint=f"use {name}.aio there, with `async for` or `await`"
        )


class MapResults(Generic[R]):
    """The results of a map: iterate them with `for` or `async for`, once."""

    def __init__(
        self,
        function: "Function[Any, Any, Any]",
        name: str,
        feed: "Feed",
        *,
        ordered: bool,
        return_exceptions: bool,
    ) -> None:
        self._function = function
        self._name = name
        self._feed = feed
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._iterated = False

    def __iter__(self) -> Iterator[R]:
        refuse_blocking(self._name)
        return self._blocking()

    def __aiter__(self) -> AsyncIterator[R]:
        return self.awaiting()

    def _blocking(self) -> Generator[R, None, None]:
        for ends in self.ends():
            for end in ends:
                yield self._read(end)

    async def awaiting(self) -> AsyncGenerator[R, None]:
        """Yield the results."""
        from contextlib import aclosing

        async with aclosing(self.ends_async()) as batches:
            async for ends in batches:
                for end in ends:
                    yield self._read(end)

    def _read(self, end: End) -> Any:
        return end.error() if end.failed and self._return_exceptions else end.read()

    def ends(self) -> Generator[list[End], None, None]:
        """Yield the outputs in batches, blocking for each."""
        run = _Run(self, None)
        try:
            while ends := run.channel.take():
                yield ends
        finally:
            run.close()

    async def ends_async(self) -> AsyncGenerator[list[End], None]:
        """Yield the outputs in batches."""
        run = _Run(self, asyncio.get_running_loop())
        try:
            while ends := await run.channel.take_async():
                yield ends
        finally:
            run.close()

    def __del__(self) -> None:
        if not getattr(self, "_iterated", True):
            _log.warning(
                "the results of %s were never iterated, so nothing was called; use for_each or spawn_map "
                "to call for the effect",
                self._name,
            )


class _Run(Iteration):
    """One iteration of a map."""

    def __init__(self, results: MapResults[Any], home: asyncio.AbstractEventLoop | None) -> None:
        if results._iterated:
            raise exception.InvalidError(f"the results of {results._name} can be iterated once")
        results._iterated = True
        self._results = results
        results._feed.start(home)
        super().__init__(results._function, results._name, home)

    async def _begin(self, caller: "Caller", handle: "FunctionHandle") -> "MapCall":
        from tidemill._map_call import MapCall

        results = self._results
        call = MapCall(
            caller,
            handle,
            results._feed,
            self.channel,
            ordered=results._ordered,
            return_exceptions=results._return_exceptions,
            origin=self.origin,
        )
        call.start()
        return call

    def close(self) -> None:
        self._results._feed.stop()
        super().close()


class Family(Generic[R]):
    """What the methods of the map family share."""

    def __init__(self, function: "Function[Any, R, Any]", name: str) -> None:
        self._function = function
        self._name = f"{function.name}.{name}"

    def _results(
        self,
        iterables: tuple[Inputs, ...],
        kwargs: Mapping[str, Any],
        *,
        star: bool = False,
        ordered: bool = True,
        return_exceptions: bool = False,
        wrap: bool | None = None,
    ) -> MapResults[Any]:
        if wrap is not None:
            warnings.warn(
                "wrap_returned_exceptions has no effect: exceptions are returned as they are",
                exception.DeprecationError,
                stacklevel=3,
            )
        return MapResults(
            self._function,
            self._name,
            self._feed(iterables, kwargs, star=star),
            ordered=ordered,
            return_exceptions=return_exceptions,
        )

    def _feed(
        self, iterables: tuple[Inputs, ...], kwargs: Mapping[str, Any], *, star: bool = False
    ) -> "Feed":
        from tidemill import _feed

        self._function._check_present(self._name)
        _feed.check(iterables)
        return _feed.Feed(iterables, dict(kwargs), star=star)


class Map(Family[R]):
    """`Function.map`."""

    @overload
    def __call__(
        self,
        *input_iterators: Inputs,
        kwargs: Mapping[str, Any] = ...,
        order_outputs: bool = ...,
        return_exceptions: Literal[False] = ...,
        wrap_returned_exceptions: bool | None = ...,
    ) -> MapResults[R]: ...
    @overload
    def __call__(
        self,
        *input_iterators: Inputs,
        kwargs: Mapping[str, Any] = ...,
        order_outputs: bool = ...,
        return_exceptions: bool,
        wrap_returned_exceptions: bool | None = ...,
    ) -> MapResults[R | BaseException]: ...
    def __call__(
        self,
        *input_iterators: Inputs,
        kwargs: Mapping[str, Any] = NO_KWARGS,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
    ) -> MapResults[Any]:
        """Call the function for every input, in parallel, and iterate the results.

        Args:
            input_iterators: one iterable per positional argument, read in step; plain or async.
            kwargs: keyword arguments that every call gets.
            order_outputs: yield in the order of the inputs (the default), or as results come.
            return_exceptions: yield the exception of a failed input in place of its result. Without it
                the first failure ends the map: it is raised and what is outstanding is cancelled.
            wrap_returned_exceptions: has no effect.

        Raises:
            InvalidError: the function is a generator, or an event loop runs here (use `.map.aio`).

        Example:
            total = sum(square.map(range(1000)))
        """
        return self._results(
            input_iterators,
            kwargs,
            ordered=order_outputs,
            return_exceptions=return_exceptions,
            wrap=wrap_returned_exceptions,
        )

    @overload
    def aio(
        self,
        *input_iterators: Inputs,
        kwargs: Mapping[str, Any] = ...,
        order_outputs: bool = ...,
        return_exceptions: Literal[False] = ...,
        wrap_returned_exceptions: bool | None = ...,
    ) -> AsyncGenerator[R, None]: ...
    @overload
    def aio(
        self,
        *input_iterators: Inputs,
        kwargs: Mapping[str, Any] = ...,
        order_outputs: bool = ...,
        return_exceptions: bool,
        wrap_returned_exceptions: bool | None = ...,
    ) -> AsyncGenerator[R | BaseException, None]: ...
    def aio(
        self,
        *input_iterators: Inputs,
        kwargs: Mapping[str, Any] = NO_KWARGS,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Do the same for `async for`."""
        return self._results(
            input_iterators,
            kwargs,
            ordered=order_outputs,
            return_exceptions=return_exceptions,
            wrap=wrap_returned_exceptions,
        ).awaiting()


class StarMap(Family[R]):
    """`Function.starmap`."""

    @overload
    def __call__(
        self,
        input_iterator: Inputs,
        *,
        kwargs: Mapping[str, Any] = ...,
        order_outputs: bool = ...,
        return_exceptions: Literal[False] = ...,
        wrap_returned_exceptions: bool | None = ...,
    ) -> MapResults[R]: ...
    @overload
    def __call__(
        self,
        input_iterator: Inputs,
        *,
        kwargs: Mapping[str, Any] = ...,
        order_outputs: bool = ...,
        return_exceptions: bool,
        wrap_returned_exceptions: bool | None = ...,
    ) -> MapResults[R | BaseException]: ...
    def __call__(
        self,
        input_iterator: Inputs,
        *,
        kwargs: Mapping[str, Any] = NO_KWARGS,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
    ) -> MapResults[Any]:
        """Do as `map`, with one iterable of tuples of arguments."""
        return self._results(
            (input_iterator,),
            kwargs,
            star=True,
            ordered=order_outputs,
            return_exceptions=return_exceptions,
            wrap=wrap_returned_exceptions,
        )

    @overload
    def aio(
        self,
        input_iterator: Inputs,
        *,
        kwargs: Mapping[str, Any] = ...,
        order_outputs: bool = ...,
        return_exceptions: Literal[False] = ...,
        wrap_returned_exceptions: bool | None = ...,
    ) -> AsyncGenerator[R, None]: ...
    @overload
    def aio(
        self,
        input_iterator: Inputs,
        *,
        kwargs: Mapping[str, Any] = ...,
        order_outputs: bool = ...,
        return_exceptions: bool,
        wrap_returned_exceptions: bool | None = ...,
    ) -> AsyncGenerator[R | BaseException, None]: ...
    def aio(
        self,
        input_iterator: Inputs,
        *,
        kwargs: Mapping[str, Any] = NO_KWARGS,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Do the same for `async for`."""
        return self._results(
            (input_iterator,),
            kwargs,
            star=True,
            ordered=order_outputs,
            return_exceptions=return_exceptions,
            wrap=wrap_returned_exceptions,
        ).awaiting()


class ForEach(Family[Any]):
    """`Function.for_each`."""

    def __call__(
        self,
        *input_iterators: Inputs,
        kwargs: Mapping[str, Any] = NO_KWARGS,
        ignore_exceptions: bool = False,
    ) -> None:
        """Call the function for every input and wait for all of them; results are not kept.

        Args:
            input_iterators: as for `map`.
            kwargs: as for `map`.
            ignore_exceptions: go on when an input fails; else the first failure is raised.
        """
        refuse_blocking(self._name)
        results = self._results(input_iterators, kwargs, ordered=False, return_exceptions=ignore_exceptions)
        for ends in results.ends():
            _check(ends, ignore_exceptions)

    async def aio(
        self,
        *input_iterators: Inputs,
        kwargs: Mapping[str, Any] = NO_KWARGS,
        ignore_exceptions: bool = False,
    ) -> None:
        """Do the same and await it."""
        results = self._results(input_iterators, kwargs, ordered=False, return_exceptions=ignore_exceptions)
        async for ends in results.ends_async():
            _check(ends, ignore_exceptions)


def _check(ends: list[End], ignore_exceptions: bool) -> None:
    for end in ends:
        if end.failed and not ignore_exceptions:
            raise end.error()
