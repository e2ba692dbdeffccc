"""The function under `@app.function()`: whether it can be one, and what it says about itself."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tidemill import _names
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill.image import Image


def check_function(function: Any, *, serialized: bool, name: str | None) -> None:
    """Refuse what `@app.function()` cannot be put on, with the next step."""
    if inspect.isclass(function):
        raise InvalidError(
            f"@app.function() is for functions, {function.__name__!r} is a class",
            hint="put @app.cls() on it",
        )
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise InvalidError(f"@app.function() is for functions defined with def, not {function!r}")
    outer, _, inner = function.__qualname__.rpartition("<locals>.")
    if "." in inner:
        raise InvalidError(
            f"@app.function() cannot be used on the method {function.__qualname__!r}",
            hint="put @app.cls() on the class and @method() on the method",
        )
    if serialized:
        if inner == "<lambda>" and not name:
            raise InvalidError("a lambda has no name", hint="give @app.function() a name=")
        return
    if outer or inner == "<lambda>":
        raise InvalidError(
            f"{function.__qualname__!r} is not at the top of its module, so a container cannot import it",
            hint="move it there, or give @app.function() serialized=True",
        )


def name_of(function: Callable[..., Any], name: Any) -> str:
    """Return its name in the app."""
    return function.__qualname__ if name is None else _names.check_object("a function", name)


def is_generator(function: Callable[..., Any], given: Any) -> bool:
    """Return whether it yields."""
    found = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if given is None:
        return found
    if not isinstance(given, bool):
        raise InvalidError(f"is_generator has to be True, False or None, not {given!r}")
    if found and not given:
        raise InvalidError(f"{function.__qualname__!r} has a yield: is_generator cannot be False")
    return given


def schedule_of(function: Callable[..., Any], name: str, schedule: Any) -> dict[str, Any] | None:
    """Return the record of its schedule, which passes no arguments."""
    if schedule is None:
        return None
    from tidemill.schedule import Cron, Period

    if not isinstance(schedule, Cron | Period):
        raise InvalidError(f"schedule has to be a Cron or a Period, not {schedule!r}")
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is inspect.Parameter.empty and parameter.kind not in kinds:
            raise InvalidError(
                f"{name!r} has a schedule, which passes no arguments, but {parameter.name!r} is required",
                hint="give the parameter a default",
            )
    return schedule.record()


def check_python(name: str, image: "Image") -> None:
    """Refuse to send a function by value to another version of Python."""
    import sys

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if image._python not in ("", here):  # of another base nobody here knows
        raise InvalidError(
            f"function {name!r} is serialized by Python {here}, its image has {image._python}",
            hint=f"use Image.debian_slim(python_version={here!r}), or a function at the top of a module",
        )
