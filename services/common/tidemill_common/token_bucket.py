"""How full a token bucket is, as a value."""

from dataclasses import dataclass

from tidemill._wire.limits import Limit


@dataclass(frozen=True, slots=True)
class Level:
    """The tokens that were in a bucket at a time, in seconds of any clock.

    Below zero they are owed: they were taken before they had come.
    """

    tokens: float
    at: float

    @classmethod
    def full(cls, limit: Limit, now: float) -> "Level":
        """Return the level of a bucket that nobody took from."""
        return cls(limit.burst, now)

    def at_time(self, limit: Limit, now: float) -> "Level":
        """Return the level later on. A clock that was set back brings nothing."""
        passed = max(0.0, now - self.at)
        return Level(min(limit.burst, self.tokens + passed * limit.rate), now)

    def less(self, limit: Limit, count: int) -> "Level":
        """Return the level without some tokens. More than a whole bucket is never owed."""
        return Level(max(-limit.burst, self.tokens - count), self.at)

    def more(self, limit: Limit, count: int) -> "Level":
        """Return the level with some tokens given back."""
        return Level(min(limit.burst, self.tokens + count), self.at)

    def until(self, limit: Limit, tokens: float) -> float:
        """Return the seconds until there are so many tokens."""
        return max(0.0, (tokens - self.tokens) / limit.rate)
