"""What one gateway may admit under one limit: tokens leased ahead, values in, verdicts out.

    leased tokens -> requests are admitted at once
    none, and the scheduler said when there are more -> requests are refused at once until then
    none, and nothing said -> the scheduler is asked, which the request waits for
    the scheduler cannot be asked -> requests are admitted as the limit says, and owed to it

Times are monotonic seconds.
"""

from enum import Enum

from tidemill._wire.limits import Grant, Limit, Want
from tidemill_common.token_bucket import Level

IDLE = 1.0  # seconds without a request after which leased tokens are given back
LEAST_DENIAL = 0.02  # seconds between two questions about an empty bucket
AWAY = 0.25  # seconds between questions to a scheduler that does not answer
QUICK = 0.1  # seconds within which a slice is used up that was too small
FORGET = 120.0  # seconds without a request: the scheduler has forgotten the account long before


class Verdict(Enum):
    """What is known about the next request."""

    ADMIT, REFUSE, ASK = range(3)


class Allowance:
    """One gateway's share of one limit's tokens."""

    def __init__(self, key: str, kind: str, account: str, limit: Limit, now: float) -> None:
        self.key = key
        self.kind = kind
        self.limit = limit
        self.waiting = 0  # requests
        self._account = account
        self._held = 0
        self._ahead = 1  # tokens that are held when requests come
        self._returned = 0
        self._spent = 0
        self._asked = Want(key, kind, account)  # last
        self._denied_until = now
        self._away_until = now
        self._own: Level | None = None  # the bucket kept here while the scheduler is away
        self._known = Level.full(limit, now)  # what the scheduler said last
        self._granted_at = now
        self._used_at = now

    # --- requests

    def look(self, now: float) -> Verdict:
        """Return what is known, without taking anything."""
        if self._held:
            return Verdict.ADMIT
        if self._own is not None:
            return Verdict.ADMIT if self._own_level(now).tokens >= 1 else Verdict.REFUSE
        return Verdict.REFUSE if now < self._denied_until else Verdict.ASK

    def take(self, now: float) -> None:
        """Take the token of a request; `look` said that there is one."""
        self._used_at = now
        if self._held:
            self._held -= 1
            return
        self._own = self._own_level(now).less(self.limit, 1)
        self._spent += 1

    def wait(self, now: float) -> float:
        """Return the seconds until a refused request is worth another try."""
        if self._own is not None:
            return self._own_level(now).until(self.limit, 1)
        return max(0.0, self._denied_until - now)

    def is_asking(self, now: float) -> bool:
        """Return whether the scheduler is to be asked now, before requests have to wait for it."""
        if self._own is not None:
            return now >= self._away_until
        in_use = now - self._used_at < IDLE
        return in_use and now >= self._denied_until and self._held * 2 < self._ahead

    def has_question(self, now: float) -> bool:
        """Return whether there is anything to ask or tell the scheduler now."""
        return bool(self.waiting) or self.is_asking(now) or (self.owes() and now >= self._away_until)

    def owes(self) -> bool:
        """Return whether the scheduler does not know everything that was given back, or taken without it."""
        return bool(self._spent) or self._returned != self._asked.returned

    # --- the scheduler

    def want(self, now: float) -> Want:
        """Return what is asked of the scheduler, which is asked one thing at a time."""
        since = now - self._granted_at
        if since < QUICK:
            self._ahead *= 2
        elif since > IDLE:
            self._ahead = max(1, self._ahead // 2)
        in_use = self.waiting or now - self._used_at < IDLE
        self._asked = Want(
            self.key,
            self.kind,
            self._account,
            waiting=self.waiting,
            ahead=max(0, self._ahead - self._held) if in_use else 0,
            returned=self._returned,
            spent=self._spent,
        )
        return self._asked

    def granted(self, grant: Grant, now: float) -> None:
        """Take what the scheduler answered."""
        asked = self._asked
        self._spent -= asked.spent
        self._own = None
        self._held += grant.tokens
        self._known = Level(grant.level, now)
        if grant.tokens:
            self._granted_at = now
        if grant.tokens < asked.waiting + asked.ahead:
            self._ahead = max(1, grant.tokens)
            if grant.tokens <= asked.waiting:
                self._denied_until = now + max(LEAST_DENIAL, grant.wait)

    def unanswered(self, now: float) -> None:
        """Note that the scheduler cannot be asked: until it can, the limit is kept here."""
        self._own = self._own_level(now)
        self._away_until = now + AWAY
        self._asked = Want(self.key, self.kind, self._account)

    # --- what is not used

    def give_back(self, now: float, *, idle: float = IDLE) -> None:
        """Give back what was not used for `idle` seconds. The scheduler is to be told."""
        if self._held and now - self._used_at >= idle:
            self._returned += self._held
            self._held = 0

    def is_forgotten(self, now: float) -> bool:
        """Return whether nobody has asked for it for long."""
        return now - self._used_at > FORGET and not self._held and not self._spent

    def _own_level(self, now: float) -> Level:
        return (self._own or self._known).at_time(self.limit, now)
