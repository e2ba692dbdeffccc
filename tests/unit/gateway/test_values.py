"""MessagePack to JSON."""

import contextlib
import datetime as dt
import json
import math
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire import payload
from tidemill._wire.messages import Format
from tidemill_gateway.values import Unreadable, to_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def shown(value: Any) -> Any:
    return json.loads(to_json(*payload.encode(value)))


@given(json_values)
def test_what_json_can_say_comes_out_as_it_is(value: Any) -> None:
    assert shown(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({3}, [3]),
        (b"\x00\xff", "AP8="),
        (dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC), "2026-01-02T03:04:00+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.timedelta(days=1, milliseconds=500), 86_400.5),
        (Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (1 + 2j, [1.0, 2.0]),
        ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}),
        (math.nan, None),
        (np.array([[1, 2], [3, 4]], dtype="int16"), [[1, 2], [3, 4]]),
        (np.array([True, False]), [True, False]),
        (np.array(1.5), 1.5),
        (np.zeros((2, 0)), [[], []]),
    ],
    ids=str,
)
def test_what_json_has_no_word_for_is_written_as_it_is_usual(value: Any, text: Any) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("value", "told"),
    [({(1, 2): "a"}, "key"), (np.array(["a"]), "<U1"), (np.zeros((100_000, 0)), "empty rows")],
    ids=["tuple as a key", "array of text", "array without content"],
)
def test_what_has_no_form_in_json_is_refused_with_the_reason(value: Any, told: str) -> None:
    with pytest.raises(Unreadable, match=told):
        to_json(*payload.encode(value))


def test_a_pickle_is_never_read() -> None:
    with pytest.raises(Unreadable, match="pickle"):
        to_json(Format.PICKLE, b"cos\nsystem\n(S'false'\ntR.")


@given(st.binary())
def test_bytes_of_any_kind_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Unreadable):
        json.loads(to_json(Format.MSGPACK, data))
