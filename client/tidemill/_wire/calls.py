"""What happened to inputs: records on their way to the registry, questions about them, dead letters.

Records are packed as arrays, many in a message (`tm.events.inputs.<app>`); a field is only ever added at
the end, with a default. Times are unix times of whoever tells them.
"""

from collections.abc import Sequence
from dataclasses import field
from enum import IntEnum
from typing import NamedTuple

from tidemill._dataclass import dataclass
from tidemill._wire.messages import Try

DETAILED = 500  # inputs of a call (the first ones) of which each is recorded; the others are counted
MAX_REASON = 500  # characters


class State(IntEnum):
    """Where an input is. From SUCCESS on it is finished for good."""

    QUEUED = 0
    STARTED = 1
    RETRIED = 2  # an attempt ended, there will be another
    SUCCESS = 3
    FAILURE = 4
    TIMEOUT = 5
    CANCELLED = 6
    INIT_FAILURE = 7  # no container of its pool became ready


FINISHED = State.SUCCESS


class InputRecord(NamedTuple):
    """Something that happened to inputs of one call at the same time.

    `runs` names them: a first index and a number of inputs, for each run of inputs that follow each other
    (see `runs_of`). Without any it is about the call itself: CANCELLED ends all of its inputs that have
    not finished. A time that is not known is 0. `moments` are those of the start of their container, if they
    were waiting for it (see `phases`). `method` names the method of a class.
    """

    call: str
    runs: list[int]
    state: int
    attempt: int
    pool: str
    parent: str
    root: str
    container: str
    queued: float
    started: float
    finished: float
    reason: str = ""
    moments: tuple[float, ...] = ()
    method: str = ""


def runs_of(indices: Sequence[int]) -> list[int]:
    """Return different indices as runs: one, when they follow each other in whatever order."""
    if not indices:
        return []
    first = min(indices)
    if max(indices) - first + 1 == len(indices):
        return [first, len(indices)]
    return [number for index in indices for number in (index, 1)]


class RequestCount(NamedTuple):
    """How many requests to a web function have succeeded in a minute of unix time, as its source knows.

    It only ever grows, so that a later one says all that an earlier one did.
    """

    pool: str
    minute: int
    succeeded: int


class RecordBatch(NamedTuple):
    """Records of one app in one message. `dropped` counts those that `source` could not send before."""

    source: str
    records: list[InputRecord]
    dropped: int = 0
    requests: tuple[RequestCount, ...] = ()


# --- dead letters


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`tm.dead.<pool>.<call>.<index>`: an input that was given up.

    `chunk` is its message, an encoded `Chunk` of this one input with its earlier attempts, or whatever
    came where `readable` is false. `failure` is the encoded failure that its caller got.
    """

    pool: str
    app: str
    call: str
    index: int
    time: float
    reason: str
    chunk: bytes
    failure: bytes = b""
    readable: bool = True


# --- requests to the registry, and their answers


@dataclass(frozen=True, slots=True)
class GetCallGraph:
    """`tm.registry.get_call_graph`: the tree that a call belongs to, or with `whole=False` its own part.

    `after` continues where an answer with `next` ended. An incomplete graph waits a moment for records
    that are on their way.
    """

    call: str
    whole: bool = True
    after: str = ""


@dataclass(frozen=True, slots=True)
class CallSummary:
    """A call as it is shown: `counts` says how many of its inputs are in which status.

    `status` is `pending` until all inputs have finished, then `success`, or what went wrong: `failure`,
    `timeout`, `terminated`, `init_failure`. `recorded` inputs are known one by one. `function` is
    `Class.method` where it is a method.
    """

    call: str
    root: str
    parent: str
    app_id: str
    function_id: str
    function: str
    module: str
    pool: str
    status: str
    num_inputs: int
    counts: dict[str, int]
    created: float
    started: float | None = None
    finished: float | None = None


class GraphInput(NamedTuple):
    """One input of a call graph."""

    call: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks an input
    status: str
    container: str


@dataclass(frozen=True, slots=True)
class CallGraph:
    """The answer to `GetCallGraph`: the calls (on the first page), and inputs ordered by call and index.

    `next` is what `after` must be to get more. `truncated` says that there are more calls than are told.
    """

    root: str
    calls: tuple[CallSummary, ...]
    inputs: tuple[GraphInput, ...]
    next: str = ""
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class ListCalls:
    """`tm.registry.list_calls`: calls, newest first. Answered by a `CallList`.

    `function` is a function, a class, or `Class.method`.

    `since` and `until` are unix times; `before` is the `next` of the page before.
    """

    app_id: str = ""
    function_id: str = ""
    function: str = ""
    status: str = ""
    since: float | None = None
    until: float | None = None
    limit: int = 100
    before: str = ""


@dataclass(frozen=True, slots=True)
class CallList:
    """The answer to `ListCalls`. `next` is empty on the last page.

    `requests` are those to web functions that have succeeded in the time asked for. They are counted; only
    some of them are calls that are listed.
    """

    calls: tuple[CallSummary, ...]
    next: str = ""
    requests: int = 0


@dataclass(frozen=True, slots=True)
class CountRequests:
    """`tm.registry.count_requests`: requests to web functions that have succeeded, minute by minute.

    `since` and `until` are unix times. Answered by `RequestCounts`.
    """

    app_id: str = ""
    function_id: str = ""
    function: str = ""
    since: float | None = None
    until: float | None = None
    limit: int = 1_440


class RequestMinute(NamedTuple):
    """Requests to one function that have succeeded in the minute that began at a unix time."""

    began: float
    function_id: str
    succeeded: int


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """The answer to `CountRequests`: all of them, and the newest minutes in which there were any."""

    succeeded: int
    minutes: tuple[RequestMinute, ...]


@dataclass(frozen=True, slots=True)
class GetCall:
    """`tm.registry.get_call`: one call with its inputs from index `first` on. Answered by `CallDetails`."""

    call: str
    first: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True)
class InputDetails:
    """One recorded input: where it ran, when, what went wrong, and its earlier attempts.

    `phases` are the seconds of each part of its time, as far as they are known (see `phases.of`).
    """

    input_id: str
    index: int
    status: str
    container: str
    attempts: int
    queued: float | None
    started: float | None
    finished: float | None
    reason: str = ""
    tries: tuple[Try, ...] = ()
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallDetails:
    """The answer to `GetCall`."""

    call: CallSummary
    inputs: tuple[InputDetails, ...]


@dataclass(frozen=True, slots=True)
class ListDead:
    """`tm.registry.list_dead`: inputs that were given up, newest first. Answered by a `DeadList`."""

    app_id: str = ""
    function: str = ""
    limit: int = 100
    before: str = ""


@dataclass(frozen=True, slots=True)
class DeadInfo:
    """One dead letter as it is shown. `input_id` names it; `replayed_as` is the call that tried it again."""

    input_id: str
    call: str
    index: int
    pool: str
    app_id: str
    function: str
    reason: str
    time: float
    attempts: int
    readable: bool = True
    replayed_as: str = ""


@dataclass(frozen=True, slots=True)
class DeadList:
    """The answer to `ListDead`. `next` is empty on the last page."""

    letters: tuple[DeadInfo, ...]
    next: str = ""


@dataclass(frozen=True, slots=True)
class GetDead:
    """`tm.registry.get_dead`: one dead letter by its input's id. Answered by `DeadDetails`."""

    input_id: str


@dataclass(frozen=True, slots=True)
class DeadDetails:
    """The answer to `GetDead`: every attempt, oldest first, and the traceback of the last failure."""

    letter: DeadInfo
    tries: tuple[Try, ...] = field(default_factory=tuple)
    traceback: str = ""
    size: int = 0  # bytes of its arguments


@dataclass(frozen=True, slots=True)
class ReplayDead:
    """`tm.registry.replay_dead`: run a dead letter's input again, with the function's present code."""

    input_id: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """The answer to `ReplayDead`. `again` says that it was replayed before: nothing was started now."""

    call: str
    again: bool = False
