"""Who is let in: what a request passes before anything is queued for it.

First the proxy token, so that strangers do not use up anybody's limit; then the limits.
"""

import math
from typing import Protocol

from tidemill._wire.limits import Limit
from tidemill_gateway.problems import Problem
from tidemill_gateway.proxy_auth import Headers, ProxyTokens
from tidemill_gateway.rate_limits import Origin, RateLimits, Refusal

MAX_WINDOW = 1 << 31  # seconds; a structured field's integer has at most 15 digits


class Place(Protocol):
    """What must be known of a web function."""

    @property
    def workspace(self) -> str:
        """Its workspace."""

    @property
    def environment(self) -> str:
        """Its app's environment."""

    @property
    def app_name(self) -> str:
        """Its app's name, which may be empty."""

    @property
    def requires_proxy_auth(self) -> bool:
        """Whether it opens only to proxy tokens."""


class Admission:
    """Lets requests in, or raises `Problem`."""

    def __init__(self, limits: RateLimits, tokens: ProxyTokens) -> None:
        self.limits = limits
        self.tokens = tokens

    async def admit(self, place: Place, headers: Headers) -> str:
        """Let in a request to a web function; return the id of the token that it needs. Raises `Problem`."""
        token = self.tokens.check(place.workspace, headers) if place.requires_proxy_auth else ""
        await self.count(Origin(place.workspace, place.environment, place.app_name, token))
        return token

    async def count(self, origin: Origin) -> None:
        """Let in a request that is known to be allowed, if it does not come too soon. Raises `Problem`."""
        refusal = await self.limits.admit(origin)
        if refusal is not None:
            raise too_soon(refusal)


def too_soon(refusal: Refusal) -> Problem:
    """Return a refusal as a problem, with when another try may succeed."""
    seconds = retry_after(refusal)
    return Problem(
        429,
        "resource_exhausted",
        f"more requests than the {refusal.kind}'s limit of {refusal.limit.rate:g} per second allows",
        hint="try again later, or have the limit raised: tidemill workspace rate-limit set",
        headers={
            "Retry-After": str(seconds),
            "RateLimit-Policy": policy(refusal.kind, refusal.limit),
            "RateLimit": f'"{refusal.kind}";r=0;t={seconds}',
        },
    )


def retry_after(refusal: Refusal) -> int:
    """Return the whole seconds after which another try may succeed."""
    return max(1, math.ceil(refusal.wait))


def policy(kind: str, limit: Limit) -> str:
    """Return a limit as the IETF's draft on RateLimit header fields has it: `burst` in the time it fills.

    Quota and window are whole numbers: the window is rounded so that nobody who follows it is refused.
    """
    quota = max(1, math.floor(limit.burst))
    window = min(MAX_WINDOW, max(1, math.ceil(quota / limit.rate)))
    return f'"{kind}";q={quota};w={window}'
