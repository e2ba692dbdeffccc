"""Requests that come too soon, turned away before anything is made for them.

A flood of them must not take the processor from those that are admitted. So whether a request is refused is
looked up between its head and everything else, and the answer is made once for each limit and second; only
the id of the request, and the date, are put in. Who is refused often sends the same again: a request that is,
byte for byte, one that was refused before is not even read.
"""

import random
import secrets

from tidemill_gateway import problems
from tidemill_gateway.admission import retry_after, too_soon
from tidemill_gateway.rate_limits import Origin, RateLimits, Refusal
from tidemill_gateway.web.routes import Headers, Routes, label_of

MAX_MADE = 256
MAX_SEEN = 1_024  # requests that were refused
MAX_SEEN_SIZE = 2_048  # bytes of each
_ID = secrets.token_hex(8)  # stands for the id of a request while an answer is made

Parts = tuple[bytes, bytes]  # of an answer: before the id of the request, and behind it


class Refusals:
    """Says which requests are turned away, and with what."""

    def __init__(self, routes: Routes, limits: RateLimits, domain: str) -> None:
        self._routes = routes
        self._limits = limits
        self._suffix = b"." + domain.encode()
        self._made: dict[tuple[str, float, float, int], Parts] = {}
        self._seen: dict[bytes, str] = {}  # labels, by all bytes of a request
        self._dated: tuple[Headers, bytes] = ([], b"")

    @property
    def any(self) -> bool:
        """Whether some request may be turned away now; most of the time none is."""
        return self._limits.is_refusing

    def of(self, url: bytes, headers: Headers) -> bytes | None:
        """Return the answer to a request that is refused, without its status line and date; else None.

        What needs a proxy token is not decided here: strangers are refused for another reason.
        """
        label, _ = label_of(url, headers, self._suffix)
        return self._answer(label) if label is not None else None

    def remember(self, request: bytes, url: bytes, headers: Headers) -> None:
        """Remember all that was received of a request that was refused."""
        if len(request) > MAX_SEEN_SIZE:
            return
        label, _ = label_of(url, headers, self._suffix)
        if label is not None:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen[request] = label

    def again(self, request: bytes) -> bytes | None:
        """Return what `of` says of a request that is remembered; else None."""
        label = self._seen.get(request)
        return self._answer(label) if label is not None else None

    def status(self, line: bytes, headers: Headers) -> bytes:
        """Return a status line and the headers that the server has for every response: the date's second."""
        known, made = self._dated
        if known is not headers:
            made = line + b"".join(b"%b: %b\r\n" % header for header in headers)
            self._dated = headers, made
        return made

    def _answer(self, label: str) -> bytes | None:
        target = self._routes.find(label)
        if target is None or target.route.requires_proxy_auth:
            return None
        route = target.route
        refusal = self._limits.refusal(Origin(route.workspace, route.environment, route.app_name))
        if refusal is None:
            return None
        before, behind = self._parts(refusal)
        return b"%b%016x%b" % (before, random.getrandbits(64), behind)

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
