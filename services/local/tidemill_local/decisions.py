"""When a part that died is started again."""

FIRST_DELAY, LAST_DELAY = 0.1, 10.0  # seconds
SETTLED = 30.0  # seconds of service after which earlier deaths are forgotten


def deaths_in_a_row(before: int, served: float) -> int:
    """Return how often a part died without settling in between; `served` is its last life (seconds)."""
    return 1 if served >= SETTLED else before + 1


def restart_delay(deaths: int) -> float:
    """Return how long to wait (seconds) after this many deaths in a row: twice as long each time."""
    return min(FIRST_DELAY * 2.0 ** min(deaths - 1, 20), LAST_DELAY)
