"""Proxy tokens and limits, from the registry's tables to the gateways that go by them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from tidemill._bus.protocol import RequestFailed
from tidemill._wire.control import Done
from tidemill._wire.limits import (
    APP,
    DEFAULT,
    TOKEN,
    WORKSPACE,
    Limit,
    LimitList,
    LimitRecord,
    ListLimits,
    RemoveLimit,
    SetLimit,
)
from tidemill._wire.proxy_tokens import (
    CreateProxyToken,
    ListProxyTokens,
    ProxyTokenCreated,
    ProxyTokenList,
    RevokeProxyToken,
)
from tidemill_common import streams
from tidemill_gateway.problems import Problem
from tidemill_gateway.proxy_auth import ProxyTokens
from tidemill_gateway.rate_limits import RateLimits


@pytest.fixture
async def tokens(bus: Any) -> AsyncIterator[ProxyTokens]:
    """What a gateway knows of proxy tokens."""
    tokens = ProxyTokens(bus, structlog.get_logger())
    running = asyncio.create_task(tokens.run())
    yield tokens
    running.cancel()
    await asyncio.wait((running,))


def opens(tokens: ProxyTokens, token_id: str, secret: str, workspace: str = "main") -> bool:
    shown = [(b"modal-key", token_id.encode()), (b"modal-secret", secret.encode())]
    try:
        return tokens.check(workspace, shown) == token_id
    except Problem:
        return False


async def test_a_proxy_token_opens_until_it_is_revoked(
    client: Any, start_registry: Any, bus: Any, tokens: ProxyTokens, until: Any
) -> None:
    registry = await start_registry()
    made = await client.ask("create_proxy_token", CreateProxyToken("for curl"), ProxyTokenCreated)
    token_id, secret = made.token.token_id, made.secret
    await until(lambda: opens(tokens, token_id, secret))
    assert not opens(tokens, token_id, secret + "x")
    assert not opens(tokens, token_id, secret, workspace="other")
    assert not opens(tokens, "pt-unknown", secret)

    await bus.bucket(streams.PROXY_TOKENS).delete(token_id)  # as if NATS had lost it
    await until(lambda: not opens(tokens, token_id, secret))
    await registry.kill()
    await start_registry()
    await until(lambda: opens(tokens, token_id, secret))

    for _ in range(2):
        await client.ask("revoke_proxy_token", RevokeProxyToken(token_id), Done)
    await until(lambda: not opens(tokens, token_id, secret))
    assert (await client.ask("list_proxy_tokens", ListProxyTokens(), ProxyTokenList)).tokens == ()
    (shown,) = (await client.ask("list_proxy_tokens", ListProxyTokens(True), ProxyTokenList)).tokens
    assert (shown.token_id, shown.name, shown.revoked is not None) == (token_id, "for curl", True)
    with pytest.raises(RequestFailed, match="no proxy token"):
        await client.ask("revoke_proxy_token", RevokeProxyToken("pt-unknown"), Done)


async def test_limits_hold_on_gateways_once_they_are_set(
    client: Any, start_registry: Any, bus: Any, until: Any
) -> None:
    await start_registry()
    limits = RateLimits(bus, structlog.get_logger())
    running = asyncio.create_task(limits.run())
    own, of_app, of_token = (
        SetLimit(WORKSPACE, 50.0),
        SetLimit(APP, 0.5, 3.0, "main", "shop"),
        SetLimit(TOKEN, 0.01, 80_000.0, "", "pt-1"),
    )
    for wanted in (of_token, of_app, own, own):
        await client.ask("set_limit", wanted, LimitRecord)
    await until(lambda: limits.limit_of("main", WORKSPACE) == Limit(50.0, 250.0))
    assert limits.limit_of("main", APP, "main", "shop") == Limit(0.5, 3.0)
    assert limits.limit_of("main", TOKEN, "", "pt-1") == Limit(0.01, 36.0)  # an hour's worth
    assert limits.limit_of("other", WORKSPACE) == DEFAULT
    listed = (await client.ask("list_limits", ListLimits(), LimitList)).limits
    assert [(each.kind, each.name) for each in listed] == [(WORKSPACE, ""), (APP, "shop"), (TOKEN, "pt-1")]

    await client.ask("remove_limit", RemoveLimit(WORKSPACE), Done)
    await client.ask("remove_limit", RemoveLimit(APP, "main", "shop"), Done)
    await until(lambda: limits.limit_of("main", WORKSPACE) == DEFAULT)
    await until(lambda: limits.limit_of("main", APP, "main", "shop") is None)
    for wrong, why in (
        (SetLimit(WORKSPACE, 0.0), "a rate is 0.001 to"),
        (SetLimit(WORKSPACE, 1.0, 0.5), "a burst is 1"),
        (SetLimit("planet", 1.0), "nothing has limits"),
        (SetLimit(APP, 1.0, environment="nowhere", name="shop"), "no environment"),
        (SetLimit(APP, 1.0), "name"),
        (RemoveLimit(WORKSPACE), "no limit is set for the workspace"),
    ):
        with pytest.raises(RequestFailed, match=why):
            await client.ask("remove_limit" if isinstance(wrong, RemoveLimit) else "set_limit", wrong, Done)
    running.cancel()
    await asyncio.wait((running,))
