"""Requests that come too soon, turned away before anything is made for them.

A flood of them must not take the processor from those that are admitted. So whether a request is refused is
looked up between its head and everything else, and the answer is made once for each limit and second; only
the id of the request, and the date, are put in.
"""

import secrets

from tidemill_gateway import problems
from tidemill_gateway.admission import retry_after, too_soon
from tidemill_gateway.rate_limits import Origin, RateLimits, Refusal
from tidemill_gateway.web.routes import Headers, Routes, label_of

MAX_MADE = 256
_ID = secrets.token_hex(8)  # stands for the id of a request while an answer is made

Parts = tuple[bytes, bytes]  # of an answer: before the id of the request, and behind it


class Refusals:
    """Says which requests are turned away, and with what."""

    def __init__(self, routes: Routes, limits: RateLimits, domain: str) -> None:
        self._routes = routes
        self._limits = limits
        self._suffix = b"." + domain.encode()
        self._made: dict[tuple[str, float, float, int], Parts] = {}

    @property
    def any(self) -> bool:
        """Whether some request may be turned away now; most of the time none is."""
        return self._limits.is_refusing

    def of(self, url: bytes, headers: Headers) -> bytes | None:
        """Return the answer to a request that is refused, without its status line and date; else None.

        What needs a proxy token is not decided here: strangers are refused for another reason.
        """
        label, _ = label_of(url, headers, self._suffix)
        target = self._routes.find(label) if label is not None else None
        if target is None or target.route.requires_proxy_auth:
            return None
        route = target.route
        refusal = self._limits.refusal(Origin(route.workspace, route.environment, route.app_name))
        if refusal is None:
            return None
        before, behind = self._parts(refusal)
        return b"%b%b%b" % (before, secrets.token_hex(8).encode(), behind)

    def _parts(self, refusal: Refusal) -> Parts:
        key = refusal.kind, refusal.limit.rate, refusal.limit.burst, retry_after(refusal)
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= MAX_MADE:
                self._made.clear()
            response = problems.response(too_soon(refusal), _ID)
            head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
            before, _, behind = (head + b"\r\n" + bytes(response.body)).partition(_ID.encode())
            found = self._made[key] = before, behind
        return found
