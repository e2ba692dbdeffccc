"""Finding the user's function: import its module, or unpickle it."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from tidemill import exception
from tidemill._container.configuration import Configuration
from tidemill._wire import payload

_COROUTINE = 0x80  # flags of a code object, as in `inspect`, which takes milliseconds to import
_ASYNC_GENERATOR = 0x200


def load(configuration: Configuration) -> Callable[..., Any]:
    """Return the function that a configuration names. Whatever importing it raises is raised."""
    if configuration.serialized is not None:
        function = payload.decode(2, configuration.serialized)
    else:
        function = _find(_import(configuration.module), configuration)
    function = _undecorated(function)
    if not callable(function):
        raise exception.ExecutionError(
            f"{configuration.module}.{configuration.qualname} is a {type(function).__name__}, not a function"
        )
    return function  # type: ignore[no-any-return]


def runs_on_loop(function: Callable[..., Any]) -> bool:
    """Return whether calling the function gives a coroutine or an async generator."""
    called: Any = function
    while hasattr(called, "func") and hasattr(called, "keywords"):  # functools.partial
        called = called.func
    if not hasattr(called, "__code__"):  # an object that can be called; a method shows its function's code
        called = getattr(type(called), "__call__", None)  # noqa: B004 - the function itself is wanted
    code = getattr(called, "__code__", None)
    return code is not None and bool(code.co_flags & (_COROUTINE | _ASYNC_GENERATOR))


def _import(name: str) -> Any:
    if name == "__main__":
        raise exception.ExecutionError(
            "a function of the module __main__ cannot be imported here",
            hint="put it into a file that is run with `tidemill run`, or declare it with serialized=True",
        )
    importlib.invalidate_caches()  # the folders may be younger than what this process remembers of them
    __import__(name)  # not `import_module`: its frame would stand in the user's traceback
    return sys.modules[name]


def _find(module: Any, configuration: Configuration) -> Any:
    if "<locals>" in configuration.qualname:
        raise exception.ExecutionError(
            f"{configuration.qualname} was defined inside a function, so it cannot be imported here",
            hint="move it to the top level of its module, or declare it with serialized=True",
        )
    found = module
    for name in configuration.qualname.split("."):
        found = _undecorated(found) if found is not module else found
        try:
            found = getattr(found, name)
        except AttributeError:
            raise exception.ExecutionError(
                f"the module {configuration.module} ({getattr(module, '__file__', None)}) has no function "
                f"{configuration.qualname}",
                hint="it may be defined only under a condition that does not hold in the container",
            ) from None
    return found


def _undecorated(found: Any) -> Any:
    """Return the plain function or class of one that was declared with a decorator of an app."""
    functions, cls = sys.modules.get("tidemill.functions"), sys.modules.get("tidemill.cls")
    if functions is not None and isinstance(found, functions.Function):
        return found.get_raw_f()
    if cls is not None and isinstance(found, cls.Cls):
        return found._here().user_cls
    return found
