"""The types of what `App.function(...)` and its like return: they keep the types of what they decorate."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from tidemill._entrypoint import LocalEntrypoint
from tidemill._partial import PartialFunction
from tidemill.functions import Function

P = ParamSpec("P")
R = TypeVar("R")
O = TypeVar("O")  # noqa: E741 - what the function itself returns
C = TypeVar("C", bound=type)


class ClassDecorator(Protocol):
    """What `App.cls(...)` returns: it turns a class into a `Cls`, which is used as the class was."""

    def __call__(self, cls: C, /) -> C: ...


class EntrypointDecorator(Protocol):
    """What `App.local_entrypoint(...)` returns."""

    def __call__(self, function: Callable[P, R], /) -> LocalEntrypoint[P, R]: ...


class FunctionDecorator(Protocol):
    """What `App.function(...)` returns: it turns a Python function into a `Function`."""

    @overload
    def __call__(self, function: PartialFunction[P, R, O], /) -> Function[P, R, O]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Function[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, AsyncIterator[R]], /) -> Function[P, R, AsyncIterator[R]]: ...
    @overload
    def __call__(self, function: Callable[P, Iterator[R]], /) -> Function[P, R, Iterator[R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Function[P, R, R]: ...
