"""A Python function with what decorators below `@app.function()` said about it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, ParamSpec, TypeVar

from tidemill._dataclass import dataclass
from tidemill._wire.specs import Concurrency, Web
from tidemill.exception import InvalidError

P = ParamSpec("P")
R = TypeVar("R")

MAX_INPUTS = 1_000  # of one container at the same time


@dataclass(frozen=True, slots=True)
class Flags:
    """What the decorators said: how it answers the web, and how many inputs a container runs at once."""

    web: Web | None = None
    concurrency: Concurrency | None = None


class PartialFunction(Generic[P, R]):
    """A function that is not yet one of an app: `@app.function()` has to stand on top of it."""

    def __init__(self, raw: Callable[P, R], flags: Flags) -> None:
        self._raw = raw
        self._flags = flags
        self.__wrapped__ = raw
        self.__doc__ = raw.__doc__
        self.__module__ = raw.__module__
        self.__name__ = getattr(raw, "__name__", "")
        self.__qualname__ = getattr(raw, "__qualname__", "")

    @property
    def flags(self) -> Flags:
        """What was said about the function."""
        return self._flags

    def get_raw_f(self) -> Callable[P, R]:
        """Return the Python function."""
        return self._raw

    def __repr__(self) -> str:
        return f"PartialFunction({self.__qualname__!r})"


def unwrap(function: Any) -> tuple[Any, Flags]:
    """Return a plain function and what was said about it."""
    if isinstance(function, PartialFunction):
        return function.get_raw_f(), function.flags
    return function, Flags()


def add(decorator: str, function: Any, **said: Any) -> PartialFunction[Any, Any]:
    """Return a function with more said about it; `decorator` is what says it.

    Raises:
        InvalidError: it stands in the wrong place, or was said already.
    """
    from tidemill.functions import Function

    if isinstance(function, Function):
        raise InvalidError(
            f"@{decorator} stands above @app.function()",
            hint=f"put it below: first @app.function(), then @{decorator}",
        )
    raw, flags = unwrap(function)
    if not callable(raw) or isinstance(raw, type):
        raise InvalidError(f"@{decorator} is for functions defined with def, not {raw!r}")
    for name in said:
        if getattr(flags, name) is not None:
            what = "a second decorator for the web" if name == "web" else "a second time"
            raise InvalidError(f"@{decorator} is {what} on {raw.__qualname__!r}")
    return PartialFunction(raw, replace(flags, **said))


def check_parentheses(decorator: str, given: Any) -> None:
    """Refuse a decorator that was written without parentheses, or with a positional argument."""
    if given is not None:
        raise InvalidError(
            f"@{decorator} without parentheses, or with a positional argument", hint=f"write @{decorator}()"
        )


def concurrent(
    _warn_parentheses_missing: None = None,
    *,
    max_inputs: int | None = None,
    target_inputs: int | None = None,
) -> Callable[[Callable[P, R] | PartialFunction[P, R]], PartialFunction[P, R]]:
    """Return a decorator that lets one container run several inputs of a web function at the same time.

    Async code shares one event loop, sync code runs in threads.

    Args:
        max_inputs: the most at once, 1 to 1,000. Required.
        target_inputs: how many a container is meant to have before another one starts. Default `max_inputs`.

    Raises:
        InvalidError: a number cannot be what it is.

    Example:
        @app.function()
        @tidemill.concurrent(max_inputs=100)
        @tidemill.asgi_app()
        def web():
            return fastapi_app
    """
    check_parentheses("concurrent", _warn_parentheses_missing)
    most = _count("max_inputs", max_inputs)
    target = most if target_inputs is None else _count("target_inputs", target_inputs)
    if target > most:
        raise InvalidError(f"target_inputs ({target}) is above max_inputs ({most})")

    def decorate(function: Callable[P, R] | PartialFunction[P, R]) -> PartialFunction[P, R]:
        return add("concurrent", function, concurrency=Concurrency(most, target))

    return decorate


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_INPUTS:
        raise InvalidError(f"{name} has to be a whole number from 1 to {MAX_INPUTS:,}, not {value!r}")
    return value
