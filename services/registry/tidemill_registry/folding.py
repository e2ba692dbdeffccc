"""Many records into few rows: pure, and the same whatever the order and however often each one comes.

Of a call the first 500 inputs are rows of their own. Of the others a bit says that they have finished,
and how, so that a map of a million inputs is counted exactly in 245 rows.
"""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

from tidemill._wire import ids
from tidemill._wire.calls import DETAILED, FINISHED, MAX_REASON, InputRecord, State
from tidemill._wire.messages import Try
from tidemill._wire.phases import MOMENTS
from tidemill_common.chunks import MAX_INDEX

SEGMENT = 4096  # inputs in one row of counts
MAX_RUN, MAX_TIME = 2**27, 1e11
RETENTION = 7 * 86_400.0  # seconds since a call was made
AHEAD = 86_400.0  # seconds by which the clock of who made a call may be ahead

COUNTED = (State.SUCCESS, State.FAILURE, State.TIMEOUT, State.CANCELLED, State.INIT_FAILURE)
_STATES = frozenset(State)
_CALL = re.compile(r"fc-[0-9a-z]{26}")
_ID = re.compile(r"[A-Za-z0-9-]{0,64}")


@dataclass(slots=True)
class CallRow:
    """What records say about a call; times that are not known are 0."""

    pool: str
    root: str
    parent: str
    method: str = ""
    num_inputs: int = 0
    states: int = 0
    queued: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    cancelled: float = 0.0


@dataclass(slots=True)
class InputRow:
    """What records say about an input."""

    state: int
    attempt: int
    container: str
    queued: float
    started: float
    finished: float
    reason: str
    tries: dict[str, Any] = field(default_factory=dict)
    moments: tuple[float, ...] = ()


@dataclass(slots=True)
class Rows:
    """What a number of records comes to. `refused` counts those that cannot be stored."""

    calls: dict[str, CallRow] = field(default_factory=dict)
    inputs: dict[tuple[str, int], InputRow] = field(default_factory=dict)
    counts: dict[tuple[str, int], dict[int, int]] = field(default_factory=dict)
    refused: int = 0

    def bits(self, key: tuple[str, int], state: int) -> str:
        """Return the inputs of a segment that have finished in a state: a bit for each, as a literal."""
        return f"x{self.counts[key].get(state, 0):0{SEGMENT // 4}x}"


def fold(records: Iterable[InputRecord], pools: Container[str], now: float) -> Rows:
    """Return what records come to. Those of unknown pools or impossible calls are refused."""
    rows = Rows()
    kept = ids.first_at(ids.CALL, now - RETENTION), ids.first_at(ids.CALL, now + AHEAD)
    for record in records:
        if record.pool in pools and _is_possible(record, kept):
            _fold(rows, record)
        else:
            rows.refused += 1
    return rows


def _is_possible(record: InputRecord, kept: tuple[str, str]) -> bool:
    """Say whether a record can be true, of a call between two ids: containers have a say in it."""
    call, runs = record.call, record.runs
    return (
        kept[0] <= call < kept[1]
        and _CALL.fullmatch(call) is not None
        and record.state in _STATES
        and len(runs) % 2 == 0
        and (not runs or (min(runs) >= 0 and max(runs[::2]) <= MAX_INDEX and max(runs[1::2]) <= MAX_RUN))
        and 0 <= record.attempt <= MAX_INDEX
        and 0 <= record.queued < MAX_TIME
        and 0 <= record.started < MAX_TIME
        and 0 <= record.finished < MAX_TIME
        and _ID.fullmatch(record.root) is not None
        and _ID.fullmatch(record.parent) is not None
        and _ID.fullmatch(record.container) is not None
        and len(record.moments) in (0, MOMENTS)
        and all(0 <= moment < MAX_TIME for moment in record.moments)
    )


def _fold(rows: Rows, record: InputRecord) -> None:
    state = record.state
    call = rows.calls.get(record.call)
    if call is None:
        call = rows.calls[record.call] = CallRow(record.pool, record.root or record.call, record.parent)
    call.parent = call.parent or record.parent
    call.method = call.method or record.method
    call.root = record.root if call.root == record.call and record.root else call.root
    call.states |= 1 << state
    call.queued = _first(call.queued, record.queued)
    call.started = _first(call.started, record.started)
    if state >= FINISHED:
        call.finished = max(call.finished, record.finished)
    if not record.runs:
        call.cancelled = _first(call.cancelled, record.finished)
    for first, count in zip(record.runs[::2], record.runs[1::2], strict=True):
        end = first + count
        call.num_inputs = max(call.num_inputs, end)
        for index in range(first, min(end, DETAILED)):
            _fold_input(rows, record, index)
        if end > DETAILED and state >= FINISHED:
            _count(rows, record.call, state, max(first, DETAILED) - DETAILED, end - DETAILED)


def _count(rows: Rows, call: str, state: int, first: int, end: int) -> None:
    """Set the bits of a run of inputs."""
    while first < end:
        segment, position = divmod(first, SEGMENT)
        length = min(end - first, SEGMENT - position)
        counts = rows.counts.setdefault((call, segment), {})
        counts[state] = counts.get(state, 0) | (1 << length) - 1 << position
        first += length


def _fold_input(rows: Rows, record: InputRecord, index: int) -> None:
    reason = record.reason.replace("\0", "")[:MAX_REASON] if record.reason else ""
    new = InputRow(
        record.state, record.attempt, record.container, record.queued, record.started, record.finished,
        reason, moments=record.moments,
    )  # fmt: skip
    if record.state == State.RETRIED:
        new.tries = {str(record.attempt): [record.container, record.started, record.finished, reason]}
    key = record.call, index
    old = rows.inputs.get(key)
    rows.inputs[key] = new if old is None else merged(old, new)


def merged(one: InputRow, other: InputRow) -> InputRow:
    """Return what two rows about one input come to; `rows.py` says the same in SQL."""
    winner = other if beats(other, one) else one
    winner.queued = _first(one.queued, other.queued)
    winner.tries = one.tries | other.tries
    return winner


def beats(new: InputRow, old: InputRow) -> bool:
    """Return whether a row says more than another: the first end counts, else the newest attempt."""
    if new.state >= FINISHED and old.state >= FINISHED:
        return new.finished < old.finished
    if new.state >= FINISHED or old.state >= FINISHED:
        return new.state >= FINISHED
    return (new.attempt, new.state) > (old.attempt, old.state)


def tries_of(stored: dict[str, Any]) -> tuple[Try, ...]:
    """Return the earlier attempts that a row holds, in their order."""
    return tuple(Try(int(attempt), *stored[attempt]) for attempt in sorted(stored, key=int))


def _first(one: float, other: float) -> float:
    """Return the earlier of two times, of which 0 is none."""
    return min(one, other) if one and other else one or other
