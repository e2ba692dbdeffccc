"""Local entrypoints, and any function's parameters as options of a command line."""

import contextlib
import datetime
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from tidemill import _runtime
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    import click

    from tidemill.app import App

P = ParamSpec("P")
R = TypeVar("R")

DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


class LocalEntrypoint(Generic[P, R]):
    """A function that `tidemill run` runs here, while its app runs."""

    def __init__(self, raw: Callable[P, R], app: "App", name: str) -> None:
        self.raw = raw
        self.app = app
        self.name = name
        self.__doc__ = raw.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it as it is."""
        return self.raw(*args, **kwargs)

    def __repr__(self) -> str:
        return f"LocalEntrypoint({self.name!r})"


# --- the import of a script


class _Importing:
    reference: str = ""


_importing_now = _Importing()


@contextlib.contextmanager
def importing(reference: str) -> Iterator[None]:
    """Refuse `App.run()` in this block: a module is imported in it, to be run afterwards."""
    before, _importing_now.reference = _importing_now.reference, reference
    try:
        yield
    finally:
        _importing_now.reference = before


def imported_now() -> str:
    """Return what the command line is importing, or an empty text."""
    return _importing_now.reference


def check_place(method: str) -> None:
    """Refuse to start an app at the top of a module that is imported for its functions."""
    where = imported_now()
    if _runtime.container is not None and _runtime.current_input.get() is None:
        where = "a container"
    if where:
        raise InvalidError(
            f"app.{method}() at the top of a module that {where} imports",
            hint='put it under `if __name__ == "__main__":`',
        )


# --- parameters as options


def build_command(function: Callable[..., Any], run: Callable[..., Any]) -> "click.Command":
    """Return a command whose options are a function's parameters and that calls `run` with their values.

    `str`, `int`, `float`, `bool`, `datetime.datetime`, `Optional` and `Literal` of them are understood;
    what has no annotation stays the text it is. `*args` alone takes all words as they are.

    Raises:
        InvalidError: a parameter cannot be given on a command line.
    """
    import click

    name = getattr(function, "__name__", "function")
    parameters = list(inspect.signature(function).parameters.values())
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return _variadic_command(name, function, parameters, run)
    hints = _hints(function)
    options = [
        _option(parameter, hints.get(parameter.name, parameter.annotation)) for parameter in parameters
    ]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]

    def callback(**values: Any) -> Any:
        args = [values.pop(name) for name in positional]
        return run(*args, **values)

    return click.Command(name, callback=callback, params=list(options), help=inspect.getdoc(function))


def _variadic_command(
    name: str, function: Callable[..., Any], parameters: list[inspect.Parameter], run: Callable[..., Any]
) -> "click.Command":
    import click

    if len(parameters) > 1:
        raise InvalidError(
            f"{name}: *{_variadic(parameters)} cannot be mixed with other parameters on a command line",
            hint="take *args alone, or named parameters alone",
        )
    words = click.Argument([parameters[0].name], nargs=-1, type=click.UNPROCESSED)
    return click.Command(
        name,
        callback=lambda **values: run(*next(iter(values.values()))),
        params=[words],
        help=inspect.getdoc(function),
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )


def _variadic(parameters: list[inspect.Parameter]) -> str:
    return next(parameter.name for parameter in parameters if parameter.kind is parameter.VAR_POSITIONAL)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations, resolved if they can be; texts that cannot are refused one by one later."""
    try:
        return typing.get_type_hints(function)
    except Exception:
        return {}


def _option(parameter: inspect.Parameter, annotation: Any) -> "click.Option":
    import click

    if parameter.kind is parameter.VAR_KEYWORD:
        raise InvalidError(f"**{parameter.name} cannot be given on a command line")
    flag = f"--{parameter.name.replace('_', '-')}"
    is_required = parameter.default is parameter.empty
    kind = _base(annotation)
    settings: dict[str, Any] = {"required": is_required, "show_default": not is_required}
    if not is_required:
        settings["default"] = parameter.default
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", parameter.name], type=bool, **settings)
    return click.Option([flag, parameter.name], type=_kind(parameter, annotation, kind), **settings)


def _base(annotation: Any) -> Any:
    """Return the type inside `Annotated`, `Optional[...]` and `... | None`."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _base(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        members = [item for item in typing.get_args(annotation) if item is not type(None)]
        if len(members) == 1:
            return _base(members[0])
    return annotation


def _kind(parameter: inspect.Parameter, annotation: Any, kind: Any) -> "click.ParamType[Any]":
    """Return how a parameter's text is read."""
    import click

    if kind is inspect.Parameter.empty or kind is Any:
        return click.UNPROCESSED
    if kind in (str, "str"):
        return click.UNPROCESSED if parameter.default is None else click.STRING
    if kind is int:
        return click.INT
    if kind is float:
        return click.FLOAT
    if kind is datetime.datetime:
        return click.DateTime(DATES)
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        if all(type(choice) is str for choice in choices) or all(type(choice) is int for choice in choices):
            return click.Choice(choices)
    raise InvalidError(
        f"the parameter {parameter.name!r} has an unparseable annotation: {_shown(annotation)}",
        hint="a command line gives str, int, float, bool, datetime, Optional or Literal of them",
    )


def _shown(annotation: Any) -> str:
    return getattr(annotation, "__qualname__", "") or str(annotation)
