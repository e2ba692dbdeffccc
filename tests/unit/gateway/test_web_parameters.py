"""Parameters of classes in the query of a URL."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import _parameters
from tidemill._wire.specs import Parameter
from tidemill_gateway.problems import Problem
from tidemill_gateway.web.parameters import of_query

ALL = (
    Parameter("text", "str", False, "default"),
    Parameter("number", "int", False, 3),
    Parameter("flag", "bool", False, False),
    Parameter("raw", "bytes", False, b"\0"),
)
VALUES = {
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    "number": st.integers(-(1 << 63), (1 << 63) - 1),
    "flag": st.booleans(),
    "raw": st.binary(max_size=20),
}


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_what_a_url_says_is_read_back(values: dict[str, Any]) -> None:
    query = _parameters.query(values)
    assert query.startswith("?") or not values
    read = of_query("Model", ALL, query.removeprefix("?").encode())
    assert read == _parameters.values("Model", ALL, values)


def test_defaults_name_the_same_object_as_nothing() -> None:
    assert of_query("Model", ALL, b"number=%2B3&flag=off&text=default&raw=%00&other=1&&=") == {}


@given(st.binary(max_size=60))
def test_any_query_is_read_or_refused(query: bytes) -> None:
    with suppress(Problem):
        assert of_query("Model", (*ALL, Parameter("a", "int", False, 0)), query) is not None


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (b"", "lacks the parameter 'size'"),
        (b"size=a&size=a", "'size' is there twice"),
        (b"size=%ff", "'size' has to be text in UTF-8"),
        (b"size=a&n=1.5", "'n' has to be a whole number, not '1.5'"),
        (b"size=a&n=", "'n' has to be a whole number"),
        (b"size=a&n=9223372036854775808", "more than 64 bits"),
        (b"size=a&ok=2", "'ok' has to be true or false"),
        (b"size=" + b"x" * 65_537, "a length of 65,537"),
    ],
)
def test_what_cannot_be_is_told(query: bytes, why: str) -> None:
    parameters = (
        Parameter("size", "str"),
        Parameter("n", "int", False, 0),
        Parameter("ok", "bool", False, True),
    )
    with pytest.raises(Problem, match=why) as refused:
        of_query("Model", parameters, query)
    assert refused.value.status_code == 422
