"""Messages to bytes and back: named tuples as arrays, dataclasses as maps, on `msgpack`."""

import dataclasses
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgpack

T = TypeVar("T")


def encode(message: object) -> bytes:
    """Return a message as MessagePack bytes."""
    return msgpack.packb(message, default=_fields)  # type: ignore[no-any-return]


def decode(kind: type[T], data: bytes) -> T:
    """Return the message of type `kind` that `data` holds; `ValueError` if it is none."""
    build: Callable[[Any], T] = _builder(typing.cast(Any, kind))
    try:
        return build(msgpack.unpackb(data, strict_map_key=False))
    except (ValueError, TypeError, AttributeError, KeyError, msgpack.UnpackException) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error


def _fields(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"a {type(value).__name__} cannot stand in a message")


@cache
def _builder(kind: Any) -> Callable[[Any], Any]:
    """Return a function that turns unpacked MessagePack into a `kind`, following its annotations."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass_builder(kind)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _named_tuple_builder(kind)
    if origin in (list, tuple):
        return _sequence_builder(origin, args)
    if origin is dict:
        item = _builder(args[1])
        return lambda value: {key: item(element) for key, element in value.items()}
    if origin in (typing.Union, types.UnionType):
        return _union_builder(args)
    return _unchanged


def _unchanged(value: Any) -> Any:
    return value


def _dataclass_builder(kind: Any) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    builders = {field.name: _builder(hints[field.name]) for field in dataclasses.fields(kind)}
    return lambda value: kind(**{key: builders[key](item) for key, item in value.items() if key in builders})


def _named_tuple_builder(kind: Any) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    builders = [_builder(hints[name]) for name in kind._fields]
    if all(builder is _unchanged for builder in builders):
        return lambda value: kind(*value[: len(builders)])
    return lambda value: kind(*(build(item) for build, item in zip(builders, value, strict=False)))


def _sequence_builder(origin: Any, args: tuple[Any, ...]) -> Callable[[Any], Any]:
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        items = [_builder(arg) for arg in args]
        return lambda value: tuple(build(item) for build, item in zip(items, value, strict=True))
    build = _builder(args[0])
    return lambda value: origin(build(item) for item in value)


def _union_builder(args: tuple[Any, ...]) -> Callable[[Any], Any]:
    """Only unions of one structured type with plain ones occur: arrays and maps are the structured one."""
    structured = [build for arg in args if (build := _builder(arg)) is not _unchanged]
    if not structured:
        return _unchanged
    build = structured[0]
    return lambda value: build(value) if isinstance(value, (list, dict)) else value
