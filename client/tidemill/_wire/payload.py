"""Arguments and results as opaque bytes with a format tag.

Format 1 is MessagePack, used whenever the whole value consists of types that it gives back exactly as
they were; format 2 is cloudpickle, used otherwise. What decides is the exact type: a subclass, a
`bytearray` or a zone-aware `datetime` goes to format 2, because MessagePack would change it.
"""

import datetime
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import msgpack

from tidemill import _runtime, exception
from tidemill._wire.messages import Extension, Format
from tidemill.config import MIN_PAYLOAD_LIMIT, config

# Bytes of a payload that travel in the message itself; above, a blob. As much as fits into a message of the
# server's 2 MB: measured with 1 MB each way, a blob takes twice as long and twice the processor time.
INLINE_LIMIT = 1536 * 1024
MESSAGE_LIMIT = 256 * 1024  # bytes at which a message that carries several payloads is closed

# What is raised while a pickle is read without being of its making. Everything else is: a pickle runs code,
# and one that raises SystemExit is not to end its reader.
NOT_OF_READING = (KeyboardInterrupt, exception.InputCancellation)

_PICKLE_PROTOCOL = 5

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_COLLECTIONS = frozenset({list, tuple, set, frozenset, dict})


def encode(value: Any, *, allow_pickle: bool = True) -> tuple[int, bytes]:
    """Return `(format, bytes)` of a value.

    Raises:
        SerializationError: the value cannot be pickled, or is not plain and pickles are not allowed.
        RequestSizeError: it is above the limit (`TIDEMILL_MAX_PAYLOAD`, 4 GiB where that is not set).
    """
    if _is_plain(value):
        try:
            return Format.MSGPACK, _sized(_pack(value), "result")
        except (OverflowError, ValueError):
            pass  # an integer above 64 bits, a lone surrogate, nesting that is too deep: pickle can
    if not allow_pickle:
        raise exception.SerializationError(
            f"{_not_plain(value)} cannot be sent without pickle",
            hint="with restricted output, and to callers in other languages, only None, bool, int, float, "
            "str, bytes, list, tuple, dict, set, datetime, Decimal, UUID, complex and numpy arrays can be "
            "returned",
        )
    return Format.PICKLE, _sized(pickle(value), "result")


def encode_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, bytes]:
    """Return `(format, bytes)` of a call's arguments: in format 1 `[[args...], {kwargs...}]`."""
    if _all_plain(args) and _all_plain(kwargs.values()):
        try:
            return Format.MSGPACK, _sized(_pack([list(args), kwargs]), "arguments")
        except (OverflowError, ValueError):
            pass
    return Format.PICKLE, _sized(pickle((args, kwargs), "the arguments"), "arguments")


def decode(format: int, data: bytes) -> Any:
    """Return the value that `encode` or `encode_call` made these bytes from.

    Raises:
        DeserializationError: the bytes cannot be read here, for instance for want of a module.
    """
    try:
        if format in (Format.MSGPACK, Format.PLAIN):
            return msgpack.unpackb(data, ext_hook=_unpack_extension, strict_map_key=False)
        if format == Format.PICKLE:
            return unpickle(data)
        if format == Format.JSON:
            import json

            return json.loads(data)
    except NOT_OF_READING:
        raise
    except ModuleNotFoundError as error:
        raise _module_missing(error) from error
    except BaseException as error:
        where = "here" if _runtime.container is None else "in the container"
        raise exception.DeserializationError(
            f"reading a value {where} raised {type(error).__name__}: {error}",
            hint="both sides need the same modules and, for functions sent by value, the same Python version",
        ) from error
    raise exception.DeserializationError(f"unknown payload format {format}")


def _module_missing(error: ModuleNotFoundError) -> exception.DeserializationError:
    package = (error.name or "").partition(".")[0]
    if _runtime.container is None:
        where, hint = "the local environment", f"install {package} here, or return plain data"
    else:
        where, hint = "the container", f"install {package} in the function's image, or send plain data"
    return exception.DeserializationError(f"the module {error.name!r} is not available in {where}", hint=hint)


def pickle(value: Any, what: str = "") -> bytes:
    """Return the cloudpickle of a value, or raise `SerializationError`. `what` names it there."""
    import cloudpickle

    try:
        return cloudpickle.dumps(value, protocol=_PICKLE_PROTOCOL)  # type: ignore[no-any-return]
    except Exception as error:
        raise exception.SerializationError(
            f"{what or f'a {type(value).__qualname__}'} cannot be pickled: {type(error).__name__}: {error}",
            hint="send plain data instead, and open files, locks and connections where they are used",
        ) from error


def unpickle(data: bytes) -> Any:
    """Return the value of a pickle; whatever reading it raises is raised."""
    import pickle as reader

    return reader.loads(data)


def _sized(data: bytes, what: str) -> bytes:
    if len(data) > MIN_PAYLOAD_LIMIT and len(data) > (limit := config["max_payload"]):
        raise exception.RequestSizeError(
            f"the {what} would take {len(data):,} bytes, the limit is {limit:,}",
            hint="put large data on a volume or into several inputs, and send where it is",
        )
    return data


# --- what is plain


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is dict:
        return _all_plain(value) and _all_plain(value.values())
    if kind in _COLLECTIONS:
        return _all_plain(value)
    check = _EXACT.get(kind)
    return check(value) if check else _is_plain_other(value)


def _all_plain(items: Iterable[Any]) -> bool:
    """Look at the set of types first: a list of a million numbers costs one pass in C."""
    others = set(map(type, items)) - _SCALARS
    try:
        return not others or all(_is_plain(item) for item in items if type(item) in others)
    except RecursionError:
        return False


def _not_plain(value: Any) -> str:
    """Return in words what keeps a value from being plain: `a Money`, of a list of such things too."""
    inner = [*value, *value.values()] if type(value) is dict else value
    if type(value) in _COLLECTIONS:
        for item in inner:
            if not _is_plain(item):
                with suppress(RecursionError):
                    return _not_plain(item)
    if _is_plain(value):
        return "an integer above 64 bits, or text that is not Unicode,"
    return f"a {type(value).__qualname__}"


def _is_plain_time(value: Any) -> bool:
    """Accept naive times and fixed offsets; a named zone would come back without its rules."""
    return not value.fold and (value.tzinfo is None or type(value.tzinfo) is datetime.timezone)


def _is_plain_other(value: Any) -> bool:
    """Look at what comes from modules that are not imported for it: a tenth of a first call's time."""
    if _is_of(value, "decimal", "Decimal") or _is_of(value, "uuid", "UUID"):
        return True
    if not _is_of(value, "numpy", "ndarray"):
        return False
    return not value.dtype.hasobject and value.dtype.names is None and value.dtype.metadata is None


def _is_of(value: Any, module: str, name: str) -> bool:
    """Return whether a value is exactly of a type of a module, which then somebody has imported."""
    return type(value) is getattr(sys.modules.get(module), name, None)


def _always(_value: Any) -> bool:
    return True


_EXACT: dict[type, Callable[[Any], bool]] = {
    datetime.datetime: _is_plain_time,
    datetime.time: _is_plain_time,
    datetime.date: _always,
    datetime.timedelta: _always,
    complex: _always,
}

# --- extensions


def _pack(value: Any) -> bytes:
    return msgpack.packb(value, default=_pack_extension, strict_types=True)  # type: ignore[no-any-return]


def _pack_extension(value: Any) -> msgpack.ExtType:
    pack = _PACKERS.get(type(value))
    if pack is not None:
        return pack(value)
    if isinstance(value, int):
        raise OverflowError("an integer above 64 bits")
    if _is_of(value, "decimal", "Decimal"):
        return msgpack.ExtType(Extension.DECIMAL, str(value).encode())
    if _is_of(value, "uuid", "UUID"):
        return msgpack.ExtType(Extension.UUID, value.bytes)
    return _pack_array(value)


def _pack_sequence(code: int) -> Callable[[Any], msgpack.ExtType]:
    return lambda value: msgpack.ExtType(code, _pack(list(value)))


def _pack_text(code: int, text: Callable[[Any], str]) -> Callable[[Any], msgpack.ExtType]:
    return lambda value: msgpack.ExtType(code, text(value).encode())


def _pack_timedelta(value: datetime.timedelta) -> msgpack.ExtType:
    return msgpack.ExtType(Extension.TIMEDELTA, _pack([value.days, value.seconds, value.microseconds]))


def _pack_complex(value: complex) -> msgpack.ExtType:
    return msgpack.ExtType(Extension.COMPLEX, _pack([value.real, value.imag]))


def _pack_array(value: Any) -> msgpack.ExtType:
    return msgpack.ExtType(Extension.NDARRAY, _pack([value.dtype.str, list(value.shape), value.tobytes()]))


_PACKERS: dict[type, Callable[[Any], msgpack.ExtType]] = {
    tuple: _pack_sequence(Extension.TUPLE),
    set: _pack_sequence(Extension.SET),
    frozenset: _pack_sequence(Extension.FROZENSET),
    datetime.datetime: _pack_text(Extension.DATETIME, datetime.datetime.isoformat),
    datetime.date: _pack_text(Extension.DATE, datetime.date.isoformat),
    datetime.time: _pack_text(Extension.TIME, datetime.time.isoformat),
    datetime.timedelta: _pack_timedelta,
    complex: _pack_complex,
}


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_unpack_extension, strict_map_key=False)


def _unpack_array(data: bytes) -> Any:
    import numpy

    dtype, shape, content = _unpack(data)
    return numpy.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


def _unpack_decimal(data: bytes) -> Any:
    from decimal import Decimal

    return Decimal(data.decode())


def _unpack_uuid(data: bytes) -> Any:
    from uuid import UUID

    return UUID(bytes=bytes(data))


_UNPACKERS: dict[int, Callable[[bytes], Any]] = {
    Extension.TUPLE: lambda data: tuple(_unpack(data)),
    Extension.SET: lambda data: set(_unpack(data)),
    Extension.FROZENSET: lambda data: frozenset(_unpack(data)),
    Extension.DATETIME: lambda data: datetime.datetime.fromisoformat(data.decode()),
    Extension.DATE: lambda data: datetime.date.fromisoformat(data.decode()),
    Extension.TIME: lambda data: datetime.time.fromisoformat(data.decode()),
    Extension.TIMEDELTA: lambda data: datetime.timedelta(*_unpack(data)),
    Extension.DECIMAL: _unpack_decimal,
    Extension.UUID: _unpack_uuid,
    Extension.COMPLEX: lambda data: complex(*_unpack(data)),
    Extension.NDARRAY: _unpack_array,
}


def _unpack_extension(code: int, data: bytes) -> Any:
    unpack = _UNPACKERS.get(code)
    if unpack is None:
        raise ValueError(f"unknown extension {code}")
    return unpack(data)
