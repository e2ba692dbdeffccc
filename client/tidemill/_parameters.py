"""Parameters of classes: declared as typed fields, given to the class by keyword, checked on both sides."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from tidemill._wire.specs import Parameter
from tidemill.exception import InvalidError

KINDS: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "bytes": bytes}
INTS = range(-(1 << 63), 1 << 63)  # what travels
MAX_SIZE = 64 * 1024  # bytes, or characters, of one value


class Missing:
    """Stands for a default that there is not. A class, so that it stays the same where it travels."""


class Field:
    """A field that `parameter()` declares; the value of an object takes its place."""

    def __init__(self, default: Any, init: bool) -> None:
        self.default = default
        self.init = init
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        if self.default is Missing:
            raise AttributeError(f"{self.name} has no value", name=self.name, obj=instance)
        return self.default


def parameter(*, default: Any = Missing, init: bool = True) -> Any:
    """Declare a parameter of a class under `@app.cls()`; its type is `str`, `int`, `bool` or `bytes`.

    Each set of values has containers of its own.

    Args:
        default: the value without one; without a default the parameter is required.
        init: False leaves it out of the constructor: it only tells a type, and may be set by a hook.

    Example:
        @app.cls()
        class Model:
            size: str = tidemill.parameter(default="small")

        Model(size="large").predict.remote(1)
    """
    if not isinstance(init, bool):
        raise InvalidError(f"parameter: init has to be True or False, not {init!r}")
    return Field(default, init)


def declared(user_cls: type) -> tuple[Parameter, ...]:
    """Return the parameters of a class and its bases, in the order in which they are declared.

    Raises:
        InvalidError: one has no type, another type than can travel, or a default of another type.
    """
    found: dict[str, Parameter | None] = {}
    for base in reversed(user_cls.__mro__):
        annotations = inspect.get_annotations(base)
        for name, value in vars(base).items():
            if isinstance(value, Field):
                kind = _kind(base, name, annotations.get(name)) if value.init else ""
                found[name] = _parameter(name, kind, value.default) if value.init else None
            else:
                found.pop(name, None)  # a class that takes something else in its place
    return tuple(each for each in found.values() if each is not None)


def _kind(owner: type, name: str, annotation: Any) -> str:
    if annotation is None:
        raise InvalidError(
            f"the parameter {name!r} of {owner.__name__} has no type",
            hint=f"write {name}: str = parameter()",
        )
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    if text not in KINDS or (not isinstance(annotation, str) and annotation is not KINDS[text]):
        shown = annotation if isinstance(annotation, str) else (text or repr(annotation))
        raise InvalidError(
            f"the parameter {name!r} of {owner.__name__} is {shown}, which is not supported",
            hint=f"a parameter is {', '.join(KINDS)}",
        )
    return text


def _parameter(name: str, kind: str, default: Any) -> Parameter:
    if default is Missing:
        return Parameter(name, kind)
    try:
        _check(Parameter(name, kind), default)
    except (TypeError, InvalidError) as error:
        raise InvalidError(f"the default of a parameter cannot be this: {error}") from None
    return Parameter(name, kind, False, default)


# --- values


def values(owner: str, parameters: Iterable[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the given values that differ from the defaults, by name.

    Raises:
        TypeError: a value is of another type, or there is no such parameter.
        InvalidError: a required one is missing, or one is too large.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            raise TypeError(f"{owner} got an unexpected keyword argument {name!r}")
    missing = [name for name, parameter in known.items() if parameter.required and name not in given]
    if missing:
        raise InvalidError(f"{owner} lacks the parameter {', '.join(map(repr, missing))}")
    for name, value in given.items():
        _check(known[name], value)
    return {
        name: given[name]
        for name, parameter in sorted(known.items())
        if name in given and (parameter.required or given[name] != parameter.default)
    }


def _check(parameter: Parameter, value: Any) -> None:
    kind = KINDS[parameter.kind]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(
            f"expected {parameter.kind} for the parameter {parameter.name!r}, not {type(value).__name__}"
        )
    if kind is int and value not in INTS:
        raise InvalidError(f"the parameter {parameter.name!r} has more than 64 bits")
    if isinstance(value, str | bytes) and len(value) > MAX_SIZE:
        raise InvalidError(
            f"the parameter {parameter.name!r} has a length of {len(value):,}, above {MAX_SIZE:,}",
            hint="pass large values to the methods",
        )


def query(given: Mapping[str, Any]) -> str:
    """Return what a URL says for these values: nothing, or `?` and a query."""
    from urllib.parse import urlencode

    return f"?{urlencode({name: _shown(value) for name, value in given.items()})}" if given else ""


def _shown(value: Any) -> str | bytes:
    if isinstance(value, bytes):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def put_on(instance: object, parameters: Iterable[Parameter], given: Mapping[str, Any]) -> None:
    """Give an object its values."""
    for parameter in parameters:
        vars(instance)[parameter.name] = given.get(parameter.name, parameter.default)


def of(instance: object, parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Return those of an object's values that differ from the defaults, by name."""
    held = {each: vars(instance).get(each.name, each.default) for each in parameters}
    return {each.name: value for each, value in held.items() if each.required or value != each.default}
