"""How often, and how soon, a failed input is tried again."""

from dataclasses import dataclass

from tidemill._wire.specs import RetryPolicy
from tidemill.exception import InvalidError

MIN_DELAY = 1.0  # seconds: no retry comes sooner, whatever the policy says


@dataclass(frozen=True, kw_only=True)
class Retries:
    """A retry policy with exponential backoff.

    Retry k (from 1) comes `initial_delay * backoff_coefficient ** (k - 1)` seconds after the failure, at
    most `max_delay` and at least one second.

    Args:
        max_retries: tries after the first one, 0 or more.
        backoff_coefficient: 1.0 to 10.0; 1.0 means a fixed delay. Default 2.0.
        initial_delay: seconds before the first retry, 0 to 60. Default 1.0.
        max_delay: the longest delay in seconds, 1 to 60. Default 60.0.

    Raises:
        InvalidError: a number is out of its range.
    """

    max_retries: int
    backoff_coefficient: float = 2.0
    initial_delay: float = 1.0
    max_delay: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.max_retries, bool) or not isinstance(self.max_retries, int):
            raise InvalidError(f"max_retries has to be a whole number, not {self.max_retries!r}")
        if self.max_retries < 0:
            raise InvalidError(f"max_retries has to be 0 or more, not {self.max_retries}")
        self._check("backoff_coefficient", self.backoff_coefficient, 1.0, 10.0)
        self._check("initial_delay", self.initial_delay, 0.0, 60.0)
        self._check("max_delay", self.max_delay, 1.0, 60.0)

    @staticmethod
    def _check(name: str, value: float, low: float, high: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise InvalidError(f"{name} has to be a number from {low:g} to {high:g}, not {value!r}")

    def delay(self, retry: int) -> float:
        """Return the seconds that pass before a retry; the first one is number 1."""
        grown = self.initial_delay * self.backoff_coefficient ** (retry - 1)
        return max(MIN_DELAY, min(self.max_delay, grown))

    def policy(self) -> RetryPolicy:
        """Return the policy as the platform keeps it."""
        return RetryPolicy(
            self.max_retries,
            float(self.backoff_coefficient),
            float(self.initial_delay),
            float(self.max_delay),
        )


def read(retries: "int | Retries") -> RetryPolicy:
    """Return the policy that a decorator's `retries=` means: a number is that many, one second apart."""
    if isinstance(retries, int) and not isinstance(retries, bool):
        return Retries(max_retries=retries, backoff_coefficient=1.0).policy()
    if isinstance(retries, Retries):
        return retries.policy()
    raise InvalidError(
        f"retries has to be a number or a Retries object, not {retries!r}", hint="for example retries=3"
    )
