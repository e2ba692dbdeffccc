"""`map` and its relatives, as they hang on a function.

    for value in f.map(xs): ...            blocks for each batch of results
    async for value in f.map.aio(xs): ...  the same on an event loop; `f.map(xs)` can be used so too

Nothing is sent before the iteration begins. Inputs are read and encoded in a thread (or on the caller's
loop, if they are async), sent and matched on the SDK's loop, and decoded where they are taken.
"""

import logging
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Required, TypedDict, TypeVar, Unpack, overload

from tidemill import _sync, exception
from tidemill._iteration import Iteration
from tidemill._outcome import End
from tidemill._tracebacks import EDGE

if TYPE_CHECKING:
    import asyncio

    from tidemill._caller import Caller
    from tidemill._feed import Feed
    from tidemill._map_call import MapCall
    from tidemill._wire.control import FunctionHandle
    from tidemill.functions import Function

R = TypeVar("R")

Inputs = Iterable[Any] | AsyncIterable[Any]

_log = logging.getLogger("tidemill")
NO_KWARGS: Mapping[str, Any] = {}


class Options(TypedDict, total=False):
    """How the inputs of a map are called, and in what order their results come."""

    kwargs: Mapping[str, Any]
    order_outputs: bool
    wrap_returned_exceptions: bool | None


class Raising(Options, total=False):
    """The first failure ends the map."""

    return_exceptions: Literal[False]


class Returning(Options, total=False):
    """A failure may stand in place of a result."""

    return_exceptions: Required[bool]


class AnyOptions(Options, total=False):
    """Either."""

    return_exceptions: bool


def refuse_blocking(name: str) -> None:
    """Raise where a blocking map would stop a running event loop."""
    if _sync.in_event_loop():
        raise exception.InvalidError(
            f"{name} blocks the running event loop", hint=f"use {name}.aio there, with `async for` or `await`"
        )


class MapResults(Iteration, Generic[R]):
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
        super().__init__(function, name)
        self._feed = feed
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._iterated = False

    def __iter__(self) -> Iterator[R]:
        with EDGE:
            refuse_blocking(self._name)
        return self.each(self._read)

    def __aiter__(self) -> AsyncIterator[R]:
        return self.awaiting()

    def awaiting(self) -> AsyncGenerator[R, None]:
        """Yield the results."""
        return self.each_async(self._read)

    def _read(self, end: End) -> Any:
        return end.error() if end.failed and self._return_exceptions else end.read()

    def check(self, end: End) -> None:
        """Raise the exception of a failed input, if that is to end the map; read no value."""
        if end.failed and not self._return_exceptions:
            raise end.error()

    def _open(self, home: "asyncio.AbstractEventLoop | None") -> None:
        if self._iterated:
            raise exception.InvalidError(f"the results of {self._name} can be iterated once")
        self._iterated = True
        self._feed.start(home)
        super()._open(home)

    async def _begin(self, caller: "Caller", handle: "FunctionHandle") -> "MapCall":
        from tidemill._map_call import MapCall

        call = MapCall(
            caller,
            handle,
            self._feed,
            self.channel,
            ordered=self._ordered,
            return_exceptions=self._return_exceptions,
            origin=self.origin,
        )
        call.start()
        return call

    def _close(self) -> None:
        self._feed.stop()
        super()._close()

    def __del__(self) -> None:
        if not getattr(self, "_iterated", True):
            _log.warning(
                "the results of %s were never iterated, so nothing was called; use for_each or spawn_map "
                "to call for the effect",
                self._name,
            )


class Family(Generic[R]):
    """What the methods of the map family share."""

    def __init__(self, function: "Function[Any, R, Any]", name: str) -> None:
        self._function = function
        self._name = f"{function.name}.{name}"

    def _results(
        self,
        iterables: tuple[Inputs, ...],
        *,
        star: bool = False,
        kwargs: Mapping[str, Any] = NO_KWARGS,
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool | None = None,
    ) -> MapResults[Any]:
        if wrap_returned_exceptions is not None:
            warnings.warn(
                "wrap_returned_exceptions has no effect: exceptions are returned as they are",
                exception.DeprecationError,
                stacklevel=3,
            )
        with EDGE:
            feed = self._feed(iterables, kwargs, star=star)
        return MapResults(
            self._function, self._name, feed, ordered=order_outputs, return_exceptions=return_exceptions
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
    def __call__(self, *input_iterators: Inputs, **options: Unpack[Raising]) -> MapResults[R]: ...
    @overload
    def __call__(
        self, *input_iterators: Inputs, **options: Unpack[Returning]
    ) -> MapResults[R | BaseException]: ...
    def __call__(self, *input_iterators: Inputs, **options: Unpack[AnyOptions]) -> MapResults[Any]:
        """Call the function for every input, in parallel, and iterate the results.

        The result of a generator is the list of what it yields.

        Args:
            input_iterators: one iterable per positional argument, read in step; plain or async.
            options:
                kwargs: keyword arguments that every call gets. Default: none.
                order_outputs: yield in the order of the inputs (the default), or as results come.
                return_exceptions: yield the exception of a failed input in place of its result. Without
                    it (the default) the first failure ends the map: it is raised and what is outstanding
                    is cancelled.
                wrap_returned_exceptions: has no effect.

        Raises:
            InvalidError: an event loop runs here (use `.map.aio`).

        Example:
            total = sum(square.map(range(1000)))
        """
        return self._results(input_iterators, **options)

    @overload
    def aio(self, *input_iterators: Inputs, **options: Unpack[Raising]) -> AsyncGenerator[R, None]: ...
    @overload
    def aio(
        self, *input_iterators: Inputs, **options: Unpack[Returning]
    ) -> AsyncGenerator[R | BaseException, None]: ...
    def aio(self, *input_iterators: Inputs, **options: Unpack[AnyOptions]) -> AsyncGenerator[Any, None]:
        """Do the same for `async for`."""
        return self._results(input_iterators, **options).awaiting()


class StarMap(Family[R]):
    """`Function.starmap`."""

    @overload
    def __call__(self, input_iterator: Inputs, **options: Unpack[Raising]) -> MapResults[R]: ...
    @overload
    def __call__(
        self, input_iterator: Inputs, **options: Unpack[Returning]
    ) -> MapResults[R | BaseException]: ...
    def __call__(self, input_iterator: Inputs, **options: Unpack[AnyOptions]) -> MapResults[Any]:
        """Do as `map`, with one iterable of tuples of arguments."""
        return self._results((input_iterator,), star=True, **options)

    @overload
    def aio(self, input_iterator: Inputs, **options: Unpack[Raising]) -> AsyncGenerator[R, None]: ...
    @overload
    def aio(
        self, input_iterator: Inputs, **options: Unpack[Returning]
    ) -> AsyncGenerator[R | BaseException, None]: ...
    def aio(self, input_iterator: Inputs, **options: Unpack[AnyOptions]) -> AsyncGenerator[Any, None]:
        """Do the same for `async for`."""
        return self._results((input_iterator,), star=True, **options).awaiting()


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
        with EDGE:
            refuse_blocking(self._name)
            results = self._unordered(input_iterators, kwargs, ignore_exceptions)
            for _ in results.each(results.check):
                pass

    async def aio(
        self,
        *input_iterators: Inputs,
        kwargs: Mapping[str, Any] = NO_KWARGS,
        ignore_exceptions: bool = False,
    ) -> None:
        """Do the same and await it."""
        with EDGE:
            results = self._unordered(input_iterators, kwargs, ignore_exceptions)
            async for _ in results.each_async(results.check):
                pass

    def _unordered(
        self, iterables: tuple[Inputs, ...], kwargs: Mapping[str, Any], ignore_exceptions: bool
    ) -> MapResults[Any]:
        return self._results(
            iterables, kwargs=kwargs, order_outputs=False, return_exceptions=ignore_exceptions
        )
