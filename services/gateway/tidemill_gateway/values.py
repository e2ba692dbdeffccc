"""MessagePack to JSON: what a function returned, for who reads no Python.

Text, numbers, true, false, null, arrays and maps are themselves. Of the extensions: tuples, sets and complex
numbers become arrays; dates, times, Decimal and UUID their text; a timedelta its seconds; a numpy array
nested arrays. Bytes become base64; NaN and infinities null, as in JavaScript. Nothing is unpickled.
"""

import math
import uuid
from typing import Any

import msgpack
import msgspec

from tidemill._wire.messages import Extension, Format

_DTYPES = {  # numpy's names of numbers -> the letters of `struct` that a memoryview reads
    "|b1": "?", "|i1": "b", "|u1": "B", "<i2": "h", "<u2": "H", "<i4": "i", "<u4": "I",
    "<i8": "q", "<u8": "Q", "<f4": "f", "<f8": "d",
}  # fmt: skip
_MAX_EMPTY = 10_000


class Unreadable(Exception):
    """A value has no form in JSON; the text says why."""


def to_json(form: int, data: bytes) -> bytes:
    """Return a payload as JSON. Raises `Unreadable`."""
    if form == Format.JSON:
        return data
    if form == Format.PICKLE:
        raise Unreadable("the value is a Python pickle, which only Python reads")
    if form not in (Format.MSGPACK, Format.PLAIN):
        raise Unreadable(f"the value has the unknown format {form}")
    try:
        return msgspec.json.encode(_unpacked(data))
    except RecursionError:
        raise Unreadable("the value is nested too deeply") from None
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Unreadable(f"the value cannot be written as JSON: {error}") from error


def _unpacked(data: bytes) -> Any:
    return msgpack.unpackb(data, ext_hook=_extension, strict_map_key=False)


def _extension(code: int, data: bytes) -> Any:
    match code:
        case Extension.TUPLE | Extension.SET | Extension.FROZENSET | Extension.COMPLEX:
            return tuple(_unpacked(data))
        case Extension.DATETIME | Extension.DATE | Extension.TIME | Extension.DECIMAL:
            return data.decode()
        case Extension.TIMEDELTA:
            days, seconds, microseconds = _unpacked(data)
            return days * 86_400 + seconds + microseconds / 1e6
        case Extension.UUID:
            return str(uuid.UUID(bytes=data))
        case Extension.NDARRAY:
            return _nested(*_unpacked(data))
    raise Unreadable(f"the value has the unknown extension {code}")


def _nested(dtype: str, shape: list[int], content: bytes) -> Any:
    """Return an array as lists of lists."""
    letter = _DTYPES.get(dtype)
    if letter is None:
        raise Unreadable(f"a numpy array of type {dtype} has no form in JSON")
    if 0 in shape:
        return _empty(shape[: shape.index(0)])
    return memoryview(content).cast(letter, shape).tolist()  # type: ignore[call-overload]  # of any letter


def _empty(shape: list[int]) -> list[Any]:
    """Return an array without elements. Its shape is the sender's word only, no bytes stand behind it."""
    if math.prod(shape) > _MAX_EMPTY:
        raise Unreadable("the value has an array of too many empty rows")
    rows: list[Any] = []
    for size in reversed(shape):
        rows = [rows] * size
    return rows
