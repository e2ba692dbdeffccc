"""What a request for GPUs means."""

import pytest

from tidemill._wire import gpus


@pytest.mark.parametrize(
    ("wanted", "there", "kind"),
    [
        ([("T4", 1)], {"T4": 1}, "T4"),
        ([("T4", 2)], {"T4": 1}, None),
        ([("T4", 1)], {}, None),
        ([("H100", 2), ("A100", 1)], {"A100-40GB": 8, "H100": 2}, "H100"),
        ([("H100", 2), ("A100", 1)], {"A100-40GB": 8, "H100": 1}, "A100-40GB"),
        ([("A100", 1)], {"A100-80GB": 1}, "A100-80GB"),
        ([("A100-40GB", 1)], {"A100-80GB": 1}, None),
        ([("H100", 1)], {"H200": 1}, "H200"),
        ([("H100!", 1)], {"H200": 1}, None),
        ([("H100!", 1)], {"H200": 1, "H100": 1}, "H100"),
        ([("B200+", 1)], {"B300": 1}, "B300"),
        ([("A10G", 1)], {"A10": 1}, "A10"),
        ([("any", 1)], {"H100": 1, "L4": 1, "T4": 0}, "L4"),
        ([("any", 4)], {"H100": 4, "L4": 1}, "H100"),
        ([("RTX-4090", 1)], {"RTX-4090": 1}, "RTX-4090"),
    ],
)
def test_a_request_is_answered_with_the_most_wanted_that_is_there(
    wanted: list[gpus.Wanted], there: dict[str, int], kind: str | None
) -> None:
    offer = gpus.choose(wanted, there)
    assert (offer and offer.kind) == kind


def test_what_was_asked_for_is_better_than_what_may_stand_in_for_it() -> None:
    wanted = [("H100", 1), ("A100", 1)]
    offers = [gpus.choose(wanted, {kind: 1}) for kind in ("H100", "H200", "A100-40GB", "A100-80GB")]
    ranks = [offer.rank for offer in offers if offer]
    assert len(ranks) == 4
    assert ranks == sorted(set(ranks))


def test_a_request_reads_as_it_was_written() -> None:
    assert gpus.in_words([("H100!", 2), ("any", 1)]) == "2 x H100! or any"


def test_workers_call_their_types_as_requests_do() -> None:
    assert [gpus.named(kind) for kind in ("a10g", "h100", "A100", "rtx-4090")] == [
        "A10", "H100", "A100", "RTX-4090",
    ]  # fmt: skip
