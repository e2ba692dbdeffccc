"""What is told of refusals, and which proxy token a request shows."""

import hashlib
import hmac
from types import SimpleNamespace

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire import coding
from tidemill._wire.limits import Limit
from tidemill._wire.proxy_tokens import ProxyTokenRecord
from tidemill_common.bus.memory import MemoryBus, MemoryServer
from tidemill_gateway import admission, proxy_auth
from tidemill_gateway.problems import Problem
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


async def test_an_unknown_key_goes_the_way_of_a_wrong_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(stored: bytes, given: bytes) -> bool:
        compared.append((stored, given))
        return hmac.compare_digest(stored, given)

    monkeypatch.setattr(proxy_auth, "hmac", SimpleNamespace(compare_digest=compare))
    bus = MemoryBus(MemoryServer())
    tokens = proxy_auth.ProxyTokens(bus, structlog.get_logger())
    tokens._filled = True
    record = ProxyTokenRecord("main", hashlib.sha256(b"secret").digest())
    tokens._keep("known", coding.encode(record))
    said = []
    for key, workspace in ((b"known", "main"), (b"known", "other"), (b"unknown", "main")):
        with pytest.raises(Problem) as refused:
            tokens.check(workspace, [(b"modal-key", key), (b"modal-secret", b"wrong")])
        said.append((refused.value.status_code, refused.value.body, refused.value.headers))
    assert said[0] == said[1] == said[2]
    given = hashlib.sha256(b"wrong").digest()
    assert compared == [(record.secret_sha256, given), (record.secret_sha256, given), (bytes(32), given)]
    assert tokens.check("main", [(b"modal-key", b"known"), (b"modal-secret", b"secret")]) == "known"
    await bus.close()


def test_no_function_sees_the_secret_that_opened_it() -> None:
    headers = [(b"host", b"h"), (b"modal-key", b"a"), (b"modal-secret", b"b"), (b"tidemill-secret", b"c")]
    assert proxy_auth.without_secrets(headers) == [(b"host", b"h")]
