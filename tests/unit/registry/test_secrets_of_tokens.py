"""The secret of a token is compared in the same way, whether there is such a token or not."""

import hmac
from types import SimpleNamespace

import pytest

from tidemill_registry import tokens


def test_a_secret_is_compared_also_where_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(stored: bytes, given: bytes) -> bool:
        compared.append((len(stored), given))
        return hmac.compare_digest(stored, given)

    monkeypatch.setattr(tokens, "hmac", SimpleNamespace(compare_digest=compare))
    assert not tokens.opens(tokens.digest("secret"), "wrong")
    assert not tokens.opens(None, "wrong")
    assert compared == [(32, tokens.digest("wrong"))] * 2
    assert tokens.opens(tokens.digest("secret"), "secret")
