"""When the registry compares what NATS holds with the tables."""

import math

from tidemill_registry.outbox import LATE, RECONCILE, next_comparison


def test_after_a_long_outage_nats_is_compared_once_more_when_nothing_can_come_late() -> None:
    back = 1_000.0
    last_failure = back - 0.2
    again = next_comparison(back, last_failure)  # the first one was due in the moment in which NATS was back
    assert again == last_failure + LATE
    assert next_comparison(again, last_failure) == again + RECONCILE


def test_without_failures_nats_is_compared_now_and_then() -> None:
    assert next_comparison(5.0, -math.inf) == 5.0 + RECONCILE
