"""How the tokens of one bucket are given to gateways: values in, grants out.

Tokens leave the bucket when they are granted, not when they are used. So however many gateways there are,
no more requests are admitted in any time than come in during it and were there before. What a gateway
holds and does not use it gives back within a second or two.
"""

from dataclasses import dataclass

from tidemill._wire.limits import Grant, Limit, Want
from tidemill_common.token_bucket import Level

AHEAD = 0.1  # seconds of a limit's rate that are granted ahead of requests
AHEAD_SHARE = 0.1  # of what is left that is granted ahead, if that is more
WORTH = 0.05  # seconds of rate that gather before an empty bucket grants again: gateways then ask rarely
FORGET = 60.0  # seconds after which a silent account is forgotten


@dataclass(slots=True)
class _Account:
    """What one gateway took and gave back."""

    returned: int
    held: int = 0
    seen: float = 0.0


class Ledger:
    """One bucket and the accounts of those who lease from it. Times are unix."""

    def __init__(self, limit: Limit, level: Level) -> None:
        self.limit = limit
        self.level = level
        self._accounts: dict[str, _Account] = {}

    def change(self, limit: Limit, now: float) -> None:
        """Set another limit. What is there stays, as far as it fits."""
        if limit != self.limit:
            self.level = self.level.at_time(self.limit, now)
            self.limit = limit

    def lease(self, want: Want, now: float) -> Grant:
        """Take back what was not used, and grant what there is of what is wanted."""
        limit = self.limit
        account = self._account(want, now)
        given_back = min(max(0, want.returned - account.returned), account.held)
        account.returned = max(account.returned, want.returned)
        level = self.level.at_time(limit, now).more(limit, given_back).less(limit, want.spent)
        tokens = _granted(limit, level, want)
        account.held += tokens - given_back
        self.level = level = level.less(limit, tokens)
        exhausted = tokens <= want.waiting and tokens < want.waiting + want.ahead
        return Grant(tokens, level.tokens, level.until(limit, _worth(limit)) if exhausted else 0.0)

    def is_idle(self, now: float) -> bool:
        """Return whether it is as full as one that nobody knows, and nobody holds any of it."""
        self._forget(now)
        return not self._accounts and self.level.at_time(self.limit, now).tokens >= self.limit.burst

    def _account(self, want: Want, now: float) -> _Account:
        account = self._accounts.get(want.account)
        if account is None:
            self._forget(now)
            # What it gave back before is not known here: the leader before may have taken it back.
            account = self._accounts[want.account] = _Account(want.returned)
        account.seen = now
        return account

    def _forget(self, now: float) -> None:
        for name in [name for name, account in self._accounts.items() if account.seen < now - FORGET]:
            del self._accounts[name]


def _granted(limit: Limit, level: Level, want: Want) -> int:
    """Return how many tokens are granted: for all who wait, if there are, and some ahead."""
    if level.tokens < min(_worth(limit), max(1, want.waiting + want.ahead)):
        return 0
    most_ahead = max(1.0, limit.rate * AHEAD, level.tokens * AHEAD_SHARE)
    return int(min(level.tokens, want.waiting + min(want.ahead, most_ahead)))


def _worth(limit: Limit) -> float:
    return min(limit.burst, max(1.0, limit.rate * WORTH))
