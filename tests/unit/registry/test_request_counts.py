"""Numbers of requests come twice and in any order: the greatest of each source counts."""

from tidemill._wire.calls import RecordBatch, RequestCount
from tidemill_registry import request_counts
from tidemill_registry.folding import RETENTION

NOW = 1_000_000_000.0
MINUTE = int(NOW // 60)


def told(source: str, *counts: tuple[str, int, int]) -> RecordBatch:
    return RecordBatch(source, [], 0, tuple(RequestCount(*count) for count in counts))


def test_the_greatest_number_of_each_source_counts() -> None:
    batches = [
        told("wo-1", ("po-1", MINUTE, 7)),
        told("wo-1", ("po-1", MINUTE, 3), ("po-2", MINUTE, 1)),
        told("wo-2", ("po-1", MINUTE, 5)),
    ]
    expected = {("po-1", MINUTE, "wo-1"): 7, ("po-2", MINUTE, "wo-1"): 1, ("po-1", MINUTE, "wo-2"): 5}
    assert request_counts.fold(batches, NOW) == expected
    assert request_counts.fold([*batches[::-1], *batches], NOW) == expected


def test_impossible_numbers_are_left_out() -> None:
    old = int((NOW - RETENTION) // 60) - 1
    batches = [
        told("wo-1", ("po-1", old, 1), ("po-1", MINUTE + 100_000, 1), ("po-1", MINUTE, 0)),
        told("wo-1", ("po-1", MINUTE, -1), ("po-1", MINUTE, 2**60)),
        told("a source\0", ("po-1", MINUTE, 1)),
    ]
    assert request_counts.fold(batches, NOW) == {}
