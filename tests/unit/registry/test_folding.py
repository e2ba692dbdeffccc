"""Records come twice, late and in any order: what they come to is the same."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill._wire import ids
from tidemill._wire.calls import DETAILED, InputRecord, State, runs_of
from tidemill_registry import folding
from tidemill_registry.calls import _below, status_of
from tidemill_registry.folding import SEGMENT, Rows, fold

CALL = ids.new(ids.CALL)
NOW = ids.time_of(CALL) + 60.0


def record(state: State, *indices: int, **fields: Any) -> InputRecord:
    values = {
        "call": CALL,
        "attempt": 0,
        "pool": "po-1",
        "parent": "",
        "root": CALL,
        "container": "co-1",
        "queued": 100.0,
        "started": 101.0,
        "finished": 102.0 if state >= State.RETRIED else 0.0,
        **fields,
    }
    return InputRecord(runs=runs_of(indices), state=state, **values)  # type: ignore[arg-type]


def fold_all(*records: InputRecord) -> Rows:
    return fold(records, {"po-1"}, NOW)


def test_the_first_end_of_an_input_is_the_one_that_counts() -> None:
    late = record(State.FAILURE, 0, finished=105.0, container="co-2")
    rows = fold_all(late, record(State.SUCCESS, 0), record(State.STARTED, 0, attempt=9))
    row = rows.inputs[CALL, 0]
    assert (row.state, row.container, row.finished) == (State.SUCCESS, "co-1", 102.0)
    assert rows.calls[CALL].finished == 105.0


def test_an_earlier_attempt_is_kept_beside_the_last_one() -> None:
    tried = record(State.RETRIED, 0, reason="ValueError: no")
    row = fold_all(record(State.SUCCESS, 0, attempt=1), tried).inputs[CALL, 0]
    assert (row.state, row.attempt) == (State.SUCCESS, 1)
    assert folding.tries_of(row.tries) == ((0, "co-1", 101.0, 102.0, "ValueError: no"),)


def test_a_long_map_is_counted_exactly_in_few_rows() -> None:
    chunks = [record(State.SUCCESS, *range(first, first + 50)) for first in range(0, 20_000, 50)]
    rows = fold_all(*chunks, *chunks)
    assert len(rows.inputs) == DETAILED
    assert len(rows.counts) == -(-(20_000 - DETAILED) // SEGMENT)
    counted = sum(bits[State.SUCCESS].bit_count() for bits in rows.counts.values())
    assert counted == 20_000 - DETAILED
    assert rows.calls[CALL].num_inputs == 20_000


@pytest.mark.parametrize(
    "wrong",
    [
        record(State.SUCCESS, 0, pool="po-unknown"),
        record(State.SUCCESS, 0, call="fc-1"),
        record(State.SUCCESS, 0, call=ids.first_at(ids.CALL, NOW - 8 * 86_400)),
        record(State.SUCCESS, 0, call=ids.first_at(ids.CALL, NOW + 8 * 86_400)),
        record(State.SUCCESS, -1),
        record(State.SUCCESS, 2**40),
        record(State.SUCCESS, 0, finished=float("nan")),
        record(State.SUCCESS, 0, parent="in-\0"),
        record(99, 0),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_true_is_refused_and_counted(wrong: InputRecord) -> None:
    rows = fold_all(wrong)
    assert (rows.refused, rows.calls, rows.inputs) == (1, {}, {})


ANY = st.builds(
    lambda state, index, attempt, finished: record(
        state, index, attempt=attempt, finished=float(finished), container=f"co-{attempt}"
    ),
    st.sampled_from(State),
    st.sampled_from([0, 1, DETAILED, DETAILED + SEGMENT]),
    st.integers(0, 3),
    st.integers(1, 1_000),
)


@settings(deadline=None)
@given(st.lists(ANY, max_size=12, unique_by=lambda one: (one.runs[0], one.finished)), st.randoms())
def test_order_and_repetition_change_nothing(records: list[InputRecord], chance: random.Random) -> None:
    again = [*records, *records]
    chance.shuffle(again)
    one, other = fold_all(*records), fold_all(*again)
    assert (one.calls, one.counts) == (other.calls, other.counts)
    for key, row in one.inputs.items():
        mine, theirs = row, other.inputs[key]
        assert (mine.queued, mine.tries.keys()) == (theirs.queued, theirs.tries.keys())
        if mine.state >= State.SUCCESS:
            assert (mine.state, mine.finished) == (theirs.state, theirs.finished)
        else:
            assert (mine.state, mine.attempt) == (theirs.state, theirs.attempt)


def test_a_call_is_what_went_worst_with_its_inputs() -> None:
    assert status_of({"success": 3}, 0) == "success"
    assert status_of({"success": 3, "timeout": 1, "failure": 1}, 0) == "failure"
    assert status_of({"failure": 1}, 1) == "pending"


def test_what_lies_below_a_call_is_found_through_its_inputs() -> None:
    root, child, sibling, grandchild = sorted(ids.new(ids.CALL) for _ in range(4))
    parents = {
        root: "",
        child: ids.input_id(root, 7),
        sibling: ids.input_id(root, 8),
        grandchild: ids.input_id(child, 0),
    }
    assert _below(child, parents) == [child, grandchild]
    assert _below(root, parents) == [root, child, sibling, grandchild]
