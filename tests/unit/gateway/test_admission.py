"""What is told of refusals, and which proxy token a request shows."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire.limits import Limit
from tidemill._wire.proxy_tokens import ProxyTokenRecord
from tidemill_gateway import admission, proxy_auth
from tidemill_gateway.rate_limits import Refusal


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        (Limit(), '"workspace";q=1000;w=5'),
        (Limit(3, 10), '"workspace";q=10;w=4'),
        (Limit(0.01, 1), '"workspace";q=1;w=100'),
        (Limit(1_000_000, 1), '"workspace";q=1;w=1'),
    ],
)
def test_a_limit_is_shown_as_its_burst_in_the_time_that_it_takes_to_come_in(limit: Limit, shown: str) -> None:
    assert admission.policy("workspace", limit) == shown


@given(st.floats(0.001, 1e6), st.floats(1, 1e6))
def test_nobody_who_keeps_to_what_is_shown_asks_for_more_than_comes_in(rate: float, burst: float) -> None:
    quota, window = admission.policy("app", Limit(rate, burst)).split(";")[1:]
    assert int(quota[2:]) / int(window[2:]) <= rate * 1.001


def test_a_refusal_tells_when_to_try_again() -> None:
    problem = admission.too_soon(Refusal("app", Limit(0.5, 2), 3.2))
    assert problem.status_code == 429
    assert problem.headers == {
        "Retry-After": "4",
        "RateLimit-Policy": '"app";q=2;w=4',
        "RateLimit": '"app";r=0;t=4',
    }
    assert (admission.too_soon(Refusal("app", Limit(), 0.0)).headers or {})["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([("modal-key", "a"), ("modal-secret", "b")], ("a", b"b")),
        ([("tidemill-key", "a"), ("tidemill-secret", "b")], ("a", b"b")),
        (
            [("modal-key", "x"), ("modal-secret", "y"), ("tidemill-key", "a"), ("tidemill-secret", "b")],
            ("a", b"b"),
        ),
        ([("modal-key", "a"), ("tidemill-secret", "b")], None),  # halves of two tokens are none
        ([("modal-key", "a"), ("modal-key", "x"), ("modal-secret", "b")], ("a", b"b")),
        ([("authorization", "Bearer a:b")], None),
        ([], None),
    ],
)
def test_a_proxy_token_is_shown_by_two_headers(
    headers: list[tuple[str, str]], token: tuple[str, bytes] | None
) -> None:
    assert proxy_auth.shown([(name.encode(), value.encode()) for name, value in headers]) == token


def test_a_proxy_token_opens_its_own_workspace_only() -> None:
    record = ProxyTokenRecord("main", hashlib.sha256(b"secret").digest())
    assert proxy_auth.opens(record, b"secret", "main")
    assert not proxy_auth.opens(record, b"secret", "other")
    assert not proxy_auth.opens(record, b"", "main")
    assert not proxy_auth.opens(proxy_auth._NOBODY, b"", "")


def test_no_function_sees_the_secret_that_opened_it() -> None:
    headers = [(b"host", b"h"), (b"modal-key", b"a"), (b"modal-secret", b"b"), (b"tidemill-secret", b"c")]
    assert proxy_auth.without_secrets(headers) == [(b"host", b"h")]
