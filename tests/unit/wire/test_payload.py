"""What `tidemill._wire.payload` promises: the same value comes back, in format 1 where it can be."""

import datetime as dt
import enum
import threading
import uuid
from collections import OrderedDict
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import exception
from tidemill._wire import payload
from tidemill._wire.messages import Format

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.datetimes()
    | st.dates()
    | st.timedeltas()
)
hashables = st.integers() | st.text() | st.booleans() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(hashables)
        | st.frozensets(hashables)
        | st.dictionaries(hashables, inner)
    ),
    max_leaves=20,
)


def same(left: object, right: object) -> bool:
    return left == right and repr(left) == repr(right)


@given(values)
def test_a_plain_value_comes_back_with_its_exact_types(value: object) -> None:
    format, data = payload.encode(value)
    back = payload.decode(format, data)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [1, None, "text", b"bytes", 1.5, [1, (2, 3)], {"a": {1, 2}}, Decimal("1.10"), uuid.UUID(int=5), 2 + 3j],
)
def test_plain_values_need_no_pickle(value: object) -> None:
    format, data = payload.encode(value, allow_pickle=False)
    assert format == Format.MSGPACK
    assert same(payload.decode(format, data), value)


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        bytearray(b"x"),
        [bytearray(b"x")],
        {"nested": [OrderedDict(a=1)]},
        Colour.RED,
        [Colour.RED],
        2**70,
        dt.datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        "\ud800",
        Exception,
    ],
)
def test_what_messagepack_would_change_is_pickled(value: object) -> None:
    format, data = payload.encode(value)
    assert format == Format.PICKLE
    back = payload.decode(format, data)
    assert same(back, value)
    assert type(back) is type(value)


def test_a_fixed_offset_is_plain() -> None:
    moment = dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert payload.decode(*payload.encode(moment, allow_pickle=False)) == moment


@pytest.mark.parametrize("array", [np.arange(6, dtype="<i4").reshape(2, 3), np.array(1.5), np.zeros((0, 4))])
def test_an_array_comes_back_with_dtype_and_shape(array: np.ndarray) -> None:
    format, data = payload.encode([array])
    assert format == Format.MSGPACK
    (back,) = payload.decode(format, data)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array)
    assert back.flags.writeable


def test_an_array_of_objects_is_pickled() -> None:
    format, _ = payload.encode(np.array([object], dtype=object))
    assert format == Format.PICKLE


def test_arguments_are_a_list_and_a_map_so_that_any_language_can_call() -> None:
    format, data = payload.encode_call((1, "x"), {"key": [2]})
    assert format == Format.MSGPACK
    assert payload.decode(format, data) == [[1, "x"], {"key": [2]}]


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_beyond_any_use_is_refused_clearly() -> None:
    assert payload.decode(*payload.encode(nested(200))) == nested(200)
    with pytest.raises(exception.SerializationError, match="deep"):
        payload.encode(nested(100_000))


def test_what_cannot_be_pickled_says_so() -> None:
    with pytest.raises(exception.SerializationError, match="lock"):
        payload.encode(threading.Lock())


def test_restricted_output_refuses_pickles() -> None:
    with pytest.raises(exception.SerializationError, match="without pickle"):
        payload.encode(bytearray(b"x"), allow_pickle=False)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", b"\xc7\x00\x7f"])
def test_broken_bytes_give_one_clear_error(data: bytes) -> None:
    with pytest.raises(exception.DeserializationError):
        payload.decode(Format.MSGPACK, data)


def test_a_payload_above_the_cap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_MAX_PAYLOAD", "100000")
    payload.encode(b"x" * 99_000)
    with pytest.raises(exception.RequestSizeError, match="the result would take 200,005 bytes, the limit is"):
        payload.encode(b"x" * 200_000)
    with pytest.raises(exception.RequestSizeError, match="the arguments would take"):
        payload.encode_call((object, b"x" * 200_000), {})
