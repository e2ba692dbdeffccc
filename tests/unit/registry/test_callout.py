"""What a token becomes on NATS."""

import dataclasses

from tidemill._wire import ids
from tidemill._wire.tokens import MEMBER, TokenInfo
from tidemill_registry.callout import user_claims


def test_a_connection_never_ends_before_its_token() -> None:
    token = TokenInfo(ids.new_token("main"), "name", MEMBER, "main", 0.0, expires=1_000.25)
    assert user_claims(token, "U")["exp"] == 1_001
    assert "exp" not in user_claims(dataclasses.replace(token, expires=None), "U")
