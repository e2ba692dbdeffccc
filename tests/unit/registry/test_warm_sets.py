"""Which sets of options and parameters are made ready before a version serves."""

from tidemill._wire.variants import GetVariant
from tidemill_registry.warming import MOST, MOST_SETS, VariedSet, chosen


def sets(function: str, *counts: int) -> list[VariedSet]:
    return [VariedSet(function, GetVariant(f"{number}"), False, count) for number, count in enumerate(counts)]


def counts(found: list[VariedSet]) -> list[int]:
    return [one.count for one in found]


def test_the_sets_with_most_containers_come_first_and_all_of_a_function_are_bounded() -> None:
    warm = sets("f", 1, 5, 3) + sets("g", 9)
    assert counts(chosen(warm, "f", 2)) == [5, 3, 1]
    assert counts(chosen(warm, "g", 0)) == [9]
    assert counts(chosen(warm, "h", 0)) == []
    assert counts(chosen(sets("f", 30, 30, 30), "f", 10)) == [30, 10]
    assert counts(chosen(sets("f", 1), "f", MOST)) == []
    assert len(chosen(sets("f", *[1] * 40), "f", 0)) == MOST_SETS
