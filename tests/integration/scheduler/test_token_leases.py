"""Gateways lease the tokens of limits from the leader, whoever that is."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
import structlog
from played_parts import until
from running_scheduler import RunningScheduler
from scheduler_stage import Parts

from tidemill._bus.protocol import NoResponder, RequestFailed
from tidemill._wire import coding, subjects
from tidemill._wire.limits import APP, DEFAULT, LeaseTokens, Limit, LimitRecord, key
from tidemill_common import streams
from tidemill_gateway import rate_limits
from tidemill_gateway.rate_limits import Origin, RateLimits, Refusal

ORIGIN = Origin("main", "main", "shop")
SLOW = Limit(rate=0.01, burst=50)  # next to nothing comes in while a test runs


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no scheduler for gone because the machine is busy."""
    monkeypatch.setattr(rate_limits, "LEASE_TIMEOUT", 30.0)


async def set_limit(parts: Parts, limit: Limit) -> None:
    record = LimitRecord("main", APP, "main", "shop", limit)
    await parts.bus.bucket(streams.LIMITS).put(key("main", APP, "main", "shop"), coding.encode(record))


async def leader(parts: Parts) -> RunningScheduler:
    """Start a scheduler that knows what is set: before it answers, gateways keep the limits by themselves."""
    scheduler = await parts.scheduler()
    question = subjects.internal("scheduler", "lease_tokens"), coding.encode(LeaseTokens(()))

    async def answers() -> bool:
        with contextlib.suppress(NoResponder, RequestFailed):
            await parts.bus.request(*question)
            return True
        return False

    await until(answers, "leases")
    return scheduler


@contextlib.asynccontextmanager
async def gateway(parts: Parts) -> AsyncIterator[RateLimits]:
    """Run the limits of one gateway, on a connection of its own, that knows what is set."""
    limits = RateLimits(await parts.connect(), structlog.get_logger())
    running = asyncio.create_task(limits.run())
    await until(lambda: limits.limit_of("main", APP, "main", "shop") is not None, "a known limit")
    yield limits
    running.cancel()
    await asyncio.wait((running,))


async def admitted(limits: RateLimits, requests: int) -> int:
    """Return how many of some requests, all at the same time, are let through."""
    refusals = await asyncio.gather(*(limits.admit(ORIGIN) for _ in range(requests)))
    return sum(refusal is None for refusal in refusals)


async def test_two_gateways_let_through_what_one_limit_allows(parts: Parts) -> None:
    await set_limit(parts, SLOW)
    await leader(parts)
    async with gateway(parts) as one, gateway(parts) as other:
        assert sum(await asyncio.gather(admitted(one, 100), admitted(other, 100))) == 50
        assert await admitted(one, 10) + await admitted(other, 10) == 0
        refusal = await one.admit(ORIGIN)
        assert isinstance(refusal, Refusal)
        assert (refusal.kind, refusal.limit) == (APP, SLOW)
        assert 0 < refusal.wait <= 100


async def test_the_next_leader_gives_nothing_twice(parts: Parts) -> None:
    await set_limit(parts, SLOW)
    first = await leader(parts)
    async with gateway(parts) as one:
        assert await admitted(one, 30) == 30
        await one.close()  # hands back what it holds
        await first.stop()
        await leader(parts)
    async with gateway(parts) as other:
        assert 15 <= await admitted(other, 100) <= 20


async def test_a_gateway_keeps_the_limit_by_itself_while_nobody_leads(parts: Parts) -> None:
    await set_limit(parts, SLOW)
    async with gateway(parts) as one:
        assert await admitted(one, 100) == 50
        await parts.scheduler()
        await until(lambda: asked(one), "the leader's answer")
        assert await admitted(one, 10) == 0  # what was taken meanwhile is owed


async def asked(limits: RateLimits) -> bool:
    await limits.admit(ORIGIN)
    return not limits.is_alone


async def test_a_workspace_has_a_limit_though_none_is_set(parts: Parts) -> None:
    await set_limit(parts, Limit(10_000, 50_000))
    await leader(parts)
    async with gateway(parts) as one:
        began = time.monotonic()
        let_through = await admitted(one, 2_000)
        came_in = DEFAULT.rate * (time.monotonic() - began)
        assert DEFAULT.burst <= let_through <= DEFAULT.burst + came_in + 1
