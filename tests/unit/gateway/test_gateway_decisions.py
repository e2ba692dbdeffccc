"""What the gateway decides."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill_gateway import decisions


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "pair"),
    [
        ("Bearer ak-1:secret", ("ak-1", "secret")),
        ("bearer  ak-1:se:cret ", ("ak-1", "se:cret")),
        (basic("ak-1:se:cret"), ("ak-1", "se:cret")),
        ("", None),
        ("Bearer", None),
        ("Bearer ak-1", None),
        ("Bearer ak-1:", None),
        ("Bearer :secret", None),
        ("Basic ***", None),
        ("Basic /w==", None),
        ("Digest ak-1:secret", None),
    ],
)
def test_credentials_are_read_from_bearer_and_basic(header: str, pair: tuple[str, str] | None) -> None:
    assert decisions.credentials(header) == pair


@given(st.text())
def test_no_authorization_header_breaks_it(header: str) -> None:
    decisions.credentials(header)


@pytest.mark.parametrize(
    ("prefer", "wait", "seconds"),
    [
        ((), None, 0.0),
        (("wait=5",), None, 5.0),
        (("respond-async, wait=7",), None, 7.0),
        (("respond-async", ' Wait = "9" ; x=1'), None, 9.0),
        (("wait=5",), 2.5, 2.5),
        (("wait=-1",), None, 0.0),
        (("wait=soon",), None, 0.0),
        (("wait=999999999",), None, decisions.MAX_WAIT),
        (("return=minimal",), 1e9, decisions.MAX_WAIT),
    ],
)
def test_the_time_to_wait(prefer: tuple[str, ...], wait: float | None, seconds: float) -> None:
    assert decisions.seconds_to_wait(prefer, wait) == seconds


def test_an_entity_tag_is_that_of_its_bytes() -> None:
    assert decisions.etag(b"a") == decisions.etag(b"a")
    assert decisions.etag(b"a") != decisions.etag(b"b")


@pytest.mark.parametrize(
    ("header", "weak", "matches"),
    [
        ('"a"', False, True),
        ('"b", "a"', False, True),
        ("*", False, True),
        ('W/"a"', False, False),
        ('W/"a"', True, True),
        ('"b"', True, False),
        ("a", True, False),
    ],
)
def test_matching_entity_tags(header: str, weak: bool, matches: bool) -> None:
    assert decisions.matches(header, '"a"', weak=weak) is matches


def test_the_next_page_keeps_the_filters() -> None:
    query = [("name", "a b"), ("cursor", "old"), ("tag", "x=1"), ("tag", "y=2")]
    link = decisions.next_link("/api/v1/apps", query, "new&")
    assert link == '</api/v1/apps?name=a+b&tag=x%3D1&tag=y%3D2&cursor=new%26>; rel="next"'


def test_a_key_stands_for_one_call_of_one_function_in_one_workspace() -> None:
    keys = {
        decisions.claim_key(*each)
        for each in (("a", "f", "k"), ("b", "f", "k"), ("a", "g", "k"), ("a", "f", "l"))
    }
    assert len(keys) == 4
    assert decisions.claim_key("a", "f", "k") in keys


@given(st.text())
def test_a_request_id_is_always_one_that_can_stand_in_a_header(given_id: str) -> None:
    assert decisions.request_id(given_id).isascii()
    assert decisions.request_id(given_id).isprintable()


def test_a_good_request_id_is_kept() -> None:
    assert decisions.request_id("req-1.2:3") == "req-1.2:3"
