"""Decorators that stand below `@app.function()` and inside classes: they note what a function is for.

What they make is a `PartialFunction`. `@app.function()` and `@app.cls()` read it; in a class it stays where
it is, and looked up on an object it gives a `Function` that can be called elsewhere.
"""

import dataclasses
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from tidemill._wire.specs import Batching, Concurrency, Web
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill.functions import Function

P = ParamSpec("P")
R = TypeVar("R")
O = TypeVar("O")  # noqa: E741 - what the function itself returns
T = TypeVar("T")

MAX_INPUTS = 1_000  # of one container at once
MAX_BATCH = 1_000
MAX_WAIT = 600_000  # ms


class Kind(Enum):
    """What a decorated function is for."""

    FUNCTION = "function"  # of `@app.function()`: the decorators below only add to it
    METHOD = "method"
    ENTER = "enter"
    EXIT = "exit"


@dataclass(frozen=True, eq=False)
class PartialFunction(Generic[P, R, O]):
    """A function, or a class, and what decorators said of it.

    `snap` is of an enter hook that runs before a snapshot is taken.
    """

    raw: Callable[..., O]
    kind: Kind
    is_generator: bool | None = None
    snap: bool = False
    concurrency: Concurrency | None = None
    batching: Batching | None = None
    web: Web | None = None

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any]) -> "Function[P, R, O]": ...
    def __get__(self, instance: object, owner: type[Any]) -> Any:
        if instance is None:
            return self
        if self.kind is not Kind.METHOD and self.web is None:
            return self.raw.__get__(instance, owner)
        from tidemill.cls import method_of

        return method_of(instance, self)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.raw.__name__

    @property
    def yields(self) -> bool:
        """Whether it is a generator."""
        if self.is_generator is not None:
            return self.is_generator
        return inspect.isgeneratorfunction(self.raw) or inspect.isasyncgenfunction(self.raw)

    @property
    def is_async(self) -> bool:
        """Whether it is called on an event loop."""
        return inspect.iscoroutinefunction(self.raw) or inspect.isasyncgenfunction(self.raw)


def of(function: Any) -> PartialFunction[..., Any, Any]:
    """Return what decorators said of a function or class so far; of one without any, nothing."""
    if isinstance(function, PartialFunction):
        return function
    return PartialFunction(function, Kind.FUNCTION)


# --- of classes


class MethodDecorator(Protocol):
    """What `method(...)` returns."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> PartialFunction[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], AsyncIterator[R]], /
    ) -> PartialFunction[P, R, AsyncIterator[R]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Iterator[R]], /
    ) -> PartialFunction[P, R, Iterator[R]]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> PartialFunction[P, R, R]: ...


class HookDecorator(Protocol):
    """What `enter(...)` and `exit()` return."""

    def __call__(self, function: Callable[[Any], T], /) -> Callable[[Any], T]: ...


def method(_warn_parentheses_missing: None = None, *, is_generator: bool | None = None) -> MethodDecorator:
    """Return a decorator for a method of a class under `@app.cls()` that can be called elsewhere.

    Args:
        is_generator: say so if it returns a generator without being one.

    Example:
        @app.cls()
        class Model:
            @tidemill.method()
            def predict(self, x: int) -> int:
                return x * x

        Model().predict.remote(3)        # 9
    """
    check_parentheses("method", _warn_parentheses_missing)

    def decorate(function: Any) -> Any:
        before = _in_class("method", function)
        if before.concurrency is not None:
            raise _concurrent_method(before)
        return dataclasses.replace(before, kind=Kind.METHOD, is_generator=is_generator)

    return decorate


def enter(_warn_parentheses_missing: None = None, *, snap: bool = False) -> HookDecorator:
    """Return a decorator for a method that runs once in each container, before its first input.

    Several run in the order in which they are defined, those of base classes first. What one raises is told
    to whoever waits for the class.

    Args:
        snap: run it before the other enter hooks and, with `enable_memory_snapshot=True`, once for all
            containers that are forked from the snapshot.
    """
    check_parentheses("enter", _warn_parentheses_missing)
    if not isinstance(snap, bool):
        raise InvalidError(f"enter: snap has to be True or False, not {snap!r}")
    return _hook("enter", Kind.ENTER, snap=snap)


def exit(_warn_parentheses_missing: None = None) -> HookDecorator:  # noqa: A001 - Modal's name
    """Return a decorator for a method that runs when a container ends in order; it has 30 seconds."""
    check_parentheses("exit", _warn_parentheses_missing)
    return _hook("exit", Kind.EXIT)


def _hook(name: str, kind: Kind, *, snap: bool = False) -> HookDecorator:
    def decorate(function: Any) -> Any:
        before = _in_class(name, function)
        if before.batching is not None or before.concurrency is not None:
            raise InvalidError(f"{before.name!r} runs once in a container: it takes no inputs")
        parameters = list(inspect.signature(before.raw).parameters.values())[1:]
        if any(each.default is each.empty and each.kind < each.VAR_POSITIONAL for each in parameters):
            raise InvalidError(f"{before.name!r} is called without arguments: it can only take self")
        if before.yields:
            raise InvalidError(f"{before.name!r} has a yield: it cannot be an {name} hook")
        return dataclasses.replace(before, kind=kind, snap=snap)

    return decorate


def _in_class(name: str, function: Any) -> PartialFunction[..., Any, Any]:
    """Return what is known of a function that becomes part of a class in only one way."""
    from tidemill.functions import Function

    if isinstance(function, Function):
        raise InvalidError(
            f"@{name}() is for methods of classes, {function.name!r} is a function of its own",
            hint="leave one of the two decorators out",
        )
    before = of(function)
    if before.kind is not Kind.FUNCTION:
        raise InvalidError(f"{before.name!r} cannot be both @{before.kind.value}() and @{name}()")
    if before.web is not None:
        raise InvalidError(f"{before.name!r} answers the web: it cannot also be @{name}()")
    if inspect.isclass(before.raw) or not callable(before.raw):
        raise InvalidError(f"@{name}() is for methods defined with def, not {before.raw!r}")
    return before


# --- of functions and classes


def concurrent(
    _warn_parentheses_missing: None = None,
    *,
    max_inputs: int | None = None,
    target_inputs: int | None = None,
) -> Callable[[T], T]:
    """Return a decorator that has each container run several inputs at once.

    Stands below `@app.function()` or `@app.cls()`. Synchronous code runs in threads, async code as tasks of
    one event loop.

    Args:
        max_inputs: the most inputs that a container runs at once, up to 1,000. Required.
        target_inputs: how many inputs per container are aimed at: beyond it more containers are started.
            Default: the same as `max_inputs`.

    Raises:
        InvalidError: a number cannot be what it is, or it stands on a method instead of its class.
    """
    check_parentheses("concurrent", _warn_parentheses_missing)
    wanted = concurrency(max_inputs, target_inputs)

    def decorate(function: Any) -> Any:
        before = of(function)
        if before.kind is not Kind.FUNCTION:
            raise _concurrent_method(before)
        if before.concurrency is not None:
            raise InvalidError(f"@concurrent() is on {before.name!r} twice")
        return dataclasses.replace(before, concurrency=wanted)

    return decorate


def batched(_warn_parentheses_missing: None = None, *, max_batch_size: int, wait_ms: int) -> Callable[[T], T]:
    """Return a decorator that gives a function the inputs of several calls at once.

    The function takes a list for each argument and returns a list of results in the same order; callers
    pass and get single values. A batch begins when it is full, or when its first input has waited.

    Args:
        max_batch_size: the most inputs of a batch, up to 1,000.
        wait_ms: milliseconds that the first input of a batch waits for more, up to 600,000.

    Raises:
        InvalidError: a number cannot be what it is, or the function cannot be called so.
    """
    check_parentheses("batched", _warn_parentheses_missing)
    wanted = batching(max_batch_size, wait_ms)

    def decorate(function: Any) -> Any:
        before = of(function)
        if before.kind in (Kind.ENTER, Kind.EXIT):
            raise InvalidError(f"{before.name!r} runs once in a container: it takes no inputs")
        check_batched(before.raw)
        return dataclasses.replace(before, batching=wanted)

    return decorate


def concurrency(max_inputs: Any, target_inputs: Any) -> Concurrency:
    """Return how many inputs a container runs at once, or raise `InvalidError`."""
    _check_count("max_inputs", max_inputs, 1, MAX_INPUTS)
    if target_inputs is None:
        target_inputs = max_inputs
    _check_count("target_inputs", target_inputs, 1, MAX_INPUTS)
    if target_inputs > max_inputs:
        raise InvalidError(f"target_inputs ({target_inputs}) is above max_inputs ({max_inputs})")
    return Concurrency(max_inputs, target_inputs)


def batching(max_batch_size: Any, wait_ms: Any) -> Batching:
    """Return how inputs are batched, or raise `InvalidError`."""
    _check_count("max_batch_size", max_batch_size, 1, MAX_BATCH)
    _check_count("wait_ms", wait_ms, 0, MAX_WAIT)
    return Batching(max_batch_size, wait_ms)


def check_batched(function: Callable[..., Any]) -> None:
    """Refuse a function that cannot be called with batches."""
    if inspect.isclass(function):
        raise InvalidError(
            f"@batched() is for functions and methods, {function.__name__!r} is a class",
            hint="put it on the method, below or above @method()",
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidError(f"{function.__name__!r} is a generator: it cannot be batched")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not parameter.empty:
            raise InvalidError(
                f"{function.__name__!r} is batched: {parameter.name!r} cannot have a default",
                hint="a batch has a list for every argument",
            )


def _check_count(name: str, value: Any, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise InvalidError(f"{name} has to be a whole number from {lowest} to {highest:,}, not {value!r}")


def _concurrent_method(partial: PartialFunction[..., Any, Any]) -> InvalidError:
    return InvalidError(
        f"@concurrent() cannot be on the method {partial.name!r}: all methods share the containers",
        hint="put it on the class, below @app.cls()",
    )


def with_web(decorator: str, function: Any, web: Web) -> Any:
    """Return a function that answers the web; `decorator` is what says so.

    Raises:
        InvalidError: it stands in the wrong place, or was said already.
    """
    from tidemill.functions import Function

    if isinstance(function, Function):
        raise InvalidError(
            f"@{decorator} stands above @app.function()",
            hint=f"put it below: first @app.function(), then @{decorator}",
        )
    before = of(function)
    if not callable(before.raw) or isinstance(before.raw, type):
        raise InvalidError(f"@{decorator} is for functions defined with def, not {before.raw!r}")
    if before.web is not None:
        raise InvalidError(f"@{decorator} is a second decorator for the web on {before.raw.__qualname__!r}")
    if before.kind is not Kind.FUNCTION or before.batching is not None:
        raise InvalidError(f"{before.name!r} cannot be called in another way too: it answers the web")
    return dataclasses.replace(before, web=web)


def check_parentheses(decorator: str, given: Any) -> None:
    """Refuse a decorator that was written without parentheses, or with a positional argument."""
    if given is not None:
        raise InvalidError(
            f"@{decorator} without parentheses, or with a positional argument", hint=f"write @{decorator}()"
        )
