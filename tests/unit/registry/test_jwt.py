"""Tokens of NATS: whoever reads one knows who signed it."""

import base64
import json

import pytest

from tidemill_registry import jwt


def test_claims_are_read_as_they_were_signed() -> None:
    issuer = jwt.Issuer(jwt.new_seed())
    read = jwt.read(issuer.sign({"sub": "UABC", "nats": {"pub": {"allow": ["a.>"]}}}))
    assert (read["iss"], read["sub"], read["nats"]) == (issuer.public, "UABC", {"pub": {"allow": ["a.>"]}})
    assert issuer.public.startswith("A")
    assert len(issuer.public) == 56


def test_a_seed_is_one_issuer_and_two_seeds_are_two() -> None:
    seed = jwt.new_seed()
    assert jwt.Issuer(seed).public == jwt.Issuer(seed).public
    assert jwt.Issuer(jwt.new_seed()).public != jwt.Issuer(seed).public


def forged() -> list[str]:
    issuer, other = jwt.Issuer(jwt.new_seed()), jwt.Issuer(jwt.new_seed())
    header, body, signature = issuer.sign({"sub": "me"}).split(".")
    changed = base64.urlsafe_b64encode(json.dumps({"sub": "you", "iss": issuer.public}).encode()).decode()
    unsigned = base64.urlsafe_b64encode(b'{"typ": "JWT", "alg": "none"}').decode()
    return [
        "",
        "a.b",
        f"{header}.{body}",
        f"{header}.{body}.",
        f"{header}.{changed.rstrip('=')}.{signature}",
        f"{header}.{body}.{other.sign({'sub': 'me'}).rpartition('.')[2]}",
        f"{unsigned.rstrip('=')}.{body}.{signature}",
        f"{header}.bm90IGpzb24.{signature}",
        f"{header}.{base64.urlsafe_b64encode(b'{}').decode()}.{signature}",
    ]


@pytest.mark.parametrize("token", forged())
def test_what_the_issuer_did_not_sign_is_refused(token: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - many kinds of nonsense, one answer
        jwt.read(token)
