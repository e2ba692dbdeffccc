"""One implementation, called in two ways: `f.call(...)` blocks, `await f.call.aio(...)` does not.

Decorate an `async def` method and both forms exist, with the method's own types:

    method           async def             call() -> R               call.aio() -> Coroutine[R]
    class_method     async def of a class  the same, bound to the class
    Call(function)   async def             the same, bound to nothing
    Immediate(f)     def                   call() -> R               call.aio() -> Coroutine[R]
    stream           async generator       call() -> Generator[T]    call.aio() -> AsyncGenerator[T]
    context          async context manager with call() as x: ...     async with call() as x: ...
    pending          def -> Pending[R]     call() -> R               call.aio() -> Coroutine[R]

The code runs on the SDK's own loop (`tidemill._loop`) in both forms. `pending` is the short way of the
hottest methods: they work in the calling thread and only leave a future behind.

Nothing here imports asyncio before the first call: containers start without it.
"""

import functools
import sys
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from tidemill import exception
from tidemill._tracebacks import EDGE

if TYPE_CHECKING:
    from tidemill._channel import Channel

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

WAITING = 64  # items of a stream that are made before anybody takes one


def in_event_loop() -> bool:
    """Return whether blocking here would block a running event loop. A notebook's own loop is excepted."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None and "ipykernel" not in sys.modules


def warn_if_blocking(name: str) -> None:
    """Warn when the caller of a blocking form runs inside an event loop."""
    if in_event_loop():
        warnings.warn(
            f"{name}() blocks the running event loop; use {name}.aio() with await, async for or async with",
            exception.AsyncUsageWarning,
            stacklevel=3,
        )


# --- coroutines


class Call(Generic[P, R]):
    """A coroutine function that can be called in both ways."""

    def __init__(self, function: Callable[P, Coroutine[Any, Any, R]], name: str = "") -> None:
        self._function = function
        self._name = name or function.__qualname__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it and block until it is done."""
        from tidemill import _loop

        warn_if_blocking(self._name)
        with EDGE:
            return _loop.wait(self._function(*args, **kwargs))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it and await it."""
        from tidemill import _loop

        with EDGE:
            return await _loop.bridge(self._function(*args, **kwargs))


class Immediate(Generic[P, R]):
    """A function that waits for nothing, offered in both ways all the same."""

    def __init__(self, function: Callable[P, R]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it."""
        return self._function(*args, **kwargs)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it."""
        return self._function(*args, **kwargs)


class method(Generic[S, P, R]):  # noqa: N801 - a decorator
    """Make an `async def` method callable in both ways."""

    def __init__(self, function: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: S, owner: type[Any]) -> Call[P, R]: ...
    def __get__(self, instance: S | None, owner: type[Any]) -> "Self | Call[P, R]":
        if instance is None:
            return self
        return Call(functools.partial(self._function, instance), self._function.__qualname__)


class class_method(Generic[S, P, R]):  # noqa: N801 - a decorator
    """Make an `async def` that takes its class callable in both ways."""

    def __init__(self, function: Callable[Concatenate[type[S], P], Coroutine[Any, Any, R]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: object, owner: type[S]) -> Call[P, R]:
        return Call(functools.partial(self._function, owner), self._function.__qualname__)


# --- futures


class Pending(Protocol[R_co]):
    """A result that is on its way."""

    def result(self) -> R_co:
        """Block until it is there. Ctrl-C gives it up."""

    async def wait(self) -> R_co:
        """Await it. Being cancelled gives it up."""


class PendingCall(Generic[P, R]):
    """A function that leaves a `Pending` behind, called in both ways."""

    __slots__ = ("_function", "_name")

    def __init__(self, function: Callable[P, Pending[R]], name: str) -> None:
        self._function = function
        self._name = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it and block until the result is there."""
        warn_if_blocking(self._name)
        with EDGE:
            return self._function(*args, **kwargs).result()

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it and await the result."""
        with EDGE:
            return await self._function(*args, **kwargs).wait()


class pending(Generic[S, P, R]):  # noqa: N801 - a decorator
    """Make a method that returns a `Pending` callable in both ways."""

    def __init__(self, function: Callable[Concatenate[S, P], Pending[R]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: S, owner: type[Any]) -> PendingCall[P, R]: ...
    def __get__(self, instance: S | None, owner: type[Any]) -> "Self | PendingCall[P, R]":
        if instance is None:
            return self
        return PendingCall(functools.partial(self._function, instance), self._function.__qualname__)


# --- async generators


class StreamCall(Generic[P, T]):
    """An async generator function that can be iterated in both ways."""

    def __init__(self, function: Callable[P, AsyncGenerator[T, None]], name: str) -> None:
        self._function = function
        self._name = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        """Iterate it, blocking for each item."""
        warn_if_blocking(self._name)
        return self._iterate(self._function(*args, **kwargs))

    def _iterate(self, source: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        from tidemill import _loop
        from tidemill._channel import Channel

        channel: Channel[T] = Channel()
        driver = _loop.submit(_drive(source, channel))
        try:
            with EDGE:
                while items := channel.take():
                    yield from items
        finally:
            driver.cancel()

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        """Iterate it with `async for`."""
        import asyncio

        from tidemill import _loop
        from tidemill._channel import Channel

        channel: Channel[T] = Channel(asyncio.get_running_loop())
        driver = _loop.submit(_drive(self._function(*args, **kwargs), channel))
        try:
            with EDGE:
                while items := await channel.take_async():
                    for item in items:
                        yield item
        finally:
            driver.cancel()


async def _drive(source: AsyncGenerator[T, None], channel: "Channel[T]") -> None:
    """Run a stream from its first item to its clean-up in one task."""
    import asyncio
    import contextlib

    try:
        async with contextlib.aclosing(source) as items:
            async for item in items:
                channel.put((item,))
                await channel.room(WAITING)
    except asyncio.CancelledError:
        channel.end()
        raise
    except BaseException as error:  # an exit, too, is the taker's: raised here it would end the loop
        channel.end(error)
    else:
        channel.end()


class stream(Generic[S, P, T]):  # noqa: N801 - a decorator
    """Make an async generator method iterable in both ways."""

    def __init__(self, function: Callable[Concatenate[S, P], AsyncGenerator[T, None]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: S, owner: type[Any]) -> StreamCall[P, T]: ...
    def __get__(self, instance: S | None, owner: type[Any]) -> "Self | StreamCall[P, T]":
        if instance is None:
            return self
        return StreamCall(functools.partial(self._function, instance), self._function.__qualname__)


# --- async context managers


class Managed(Generic[T]):
    """An async context manager for `with` and `async with`. Entered and left in one task of the loop."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[T, Any]], name: str) -> None:
        self._make = make
        self._name = name

    async def _enter(self) -> T:
        import asyncio

        entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._leave: asyncio.Future[tuple[Any, Any, Any]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(entered))
        try:
            await asyncio.wait((entered, self._task), return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._task.cancel()
            await asyncio.wait((self._task,))
            raise
        return entered.result() if entered.done() else await self._task_failed()

    async def _task_failed(self) -> T:
        await self._task
        raise RuntimeError("a context manager ended before it was entered")

    async def _live(self, entered: Any) -> bool | None:
        manager = self._make()
        entered.set_result(await manager.__aenter__())
        suppress: bool | None = await manager.__aexit__(*await self._leave)
        return suppress

    async def _exit(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._leave.set_result((kind, error, traceback))
        return await self._task

    def __enter__(self) -> T:
        from tidemill import _loop

        warn_if_blocking(self._name)
        with EDGE:
            return _loop.wait(self._enter())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        from tidemill import _loop

        with EDGE:
            return _loop.wait(self._exit(kind, error, traceback))

    async def __aenter__(self) -> T:
        from tidemill import _loop

        with EDGE:
            return await _loop.bridge(self._enter())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        from tidemill import _loop

        with EDGE:
            return await _loop.bridge(self._exit(kind, error, traceback))


class ContextCall(Generic[P, T]):
    """A function that makes an async context manager, for `with` and `async with`."""

    def __init__(self, function: Callable[P, AbstractAsyncContextManager[T, Any]], name: str) -> None:
        self._function = function
        self._name = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Managed[T]:
        """Return the context manager."""
        return Managed(functools.partial(self._function, *args, **kwargs), self._name)

    aio = __call__


class context(Generic[S, P, T]):  # noqa: N801 - a decorator
    """Make a method under `@asynccontextmanager` usable with `with` and `async with`."""

    def __init__(self, function: Callable[Concatenate[S, P], AbstractAsyncContextManager[T, Any]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: S, owner: type[Any]) -> ContextCall[P, T]: ...
    def __get__(self, instance: S | None, owner: type[Any]) -> "Self | ContextCall[P, T]":
        if instance is None:
            return self
        name = getattr(self._function, "__qualname__", "context")
        return ContextCall(functools.partial(self._function, instance), name)
