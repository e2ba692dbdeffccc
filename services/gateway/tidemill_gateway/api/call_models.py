"""Calls and their inputs, as the API shows and takes them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from tidemill._wire.calls import CallSummary, GraphInput, InputDetails, RequestCounts
from tidemill_gateway.api.models import Given, moment, perhaps

Status = Literal["pending", "success", "failure", "timeout", "terminated", "init_failure"]
MAX_INPUTS = 10_000


class Arguments(Given):
    """What one input calls the function with."""

    args: list[Any] = Field(default=[], description="arguments by position")
    kwargs: dict[str, Any] = Field(default={}, description="arguments by name")


class NewCall(Arguments):
    """A call: of one input by `args` and `kwargs`, or of many by `inputs`."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"inputs": {"type": "null"}}},
                {"properties": {"args": {"maxItems": 0}, "kwargs": {"maxProperties": 0}}},
            ]
        }
    )

    inputs: list[Arguments] | None = Field(default=None, min_length=1, max_length=MAX_INPUTS)


@dataclass(frozen=True, slots=True)
class Call:
    """A call. `pending` until all its inputs have finished; `counts` tells inputs by status."""

    id: str
    status: str
    num_inputs: int
    counts: dict[str, int]
    app_id: str
    function_id: str
    function: str
    parent: Annotated[str, Field(description="the input that made this call, if one did")]
    root: Annotated[str, Field(description="the call that it goes back to")]
    created: datetime
    started: datetime | None
    finished: datetime | None

    @classmethod
    def of(cls, info: CallSummary) -> "Call":
        """Return it as it is shown."""
        return cls(
            id=info.call,
            status=info.status,
            num_inputs=info.num_inputs,
            counts=info.counts,
            app_id=info.app_id,
            function_id=info.function_id,
            function=info.function,
            parent=info.parent,
            root=info.root,
            created=moment(info.created),
            started=perhaps(info.started),
            finished=perhaps(info.finished),
        )


@dataclass(frozen=True, slots=True)
class RequestMinute:
    """Requests to one function that have succeeded in the minute that began then."""

    began: datetime
    function_id: str
    succeeded: int


@dataclass(frozen=True, slots=True)
class SucceededRequests:
    """Requests to web functions that have succeeded: all that were asked for, and the newest minutes."""

    succeeded: int
    minutes: list[RequestMinute]

    @classmethod
    def of(cls, counts: RequestCounts) -> "SucceededRequests":
        """Return it as it is shown."""
        minutes = [
            RequestMinute(moment(each.began), each.function_id, each.succeeded) for each in counts.minutes
        ]
        return cls(counts.succeeded, minutes)


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a call."""

    id: str
    index: int
    status: str
    container: str
    attempts: int
    queued: datetime | None
    started: datetime | None
    finished: datetime | None
    reason: str
    phases: Annotated[
        dict[str, float],
        Field(description="seconds that it waited in the `queue` and for each part of its container's start, "
              "where it waited for that (`place`, `image`, `start`, `import`, `enter`), and that it `run`"),
    ]  # fmt: skip

    @classmethod
    def of(cls, info: InputDetails) -> "Input":
        """Return it as it is shown."""
        return cls(
            id=info.input_id,
            index=info.index,
            status=info.status,
            container=info.container,
            attempts=info.attempts,
            queued=perhaps(info.queued),
            started=perhaps(info.started),
            finished=perhaps(info.finished),
            reason=info.reason,
            phases=info.phases,
        )


@dataclass(frozen=True, slots=True)
class CallDetails(Call):
    """A call with some of its inputs, from index `first` on."""

    inputs: list[Input]


@dataclass(frozen=True, slots=True)
class GraphedInput:
    """One input of a call graph."""

    call: str
    index: int
    status: str
    container: str

    @classmethod
    def of(cls, info: GraphInput) -> "GraphedInput":
        """Return it as it is shown."""
        return cls(call=info.call, index=info.index, status=info.status, container=info.container)


@dataclass(frozen=True, slots=True)
class CallGraph:
    """The tree of calls that a call belongs to. `next_cursor` leads to more inputs."""

    root: str
    calls: list[Call]
    inputs: list[GraphedInput]
    next_cursor: str | None
    truncated: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """A call that is queued. Its results are at `results`, by the index of the input."""

    id: str
    num_inputs: int
    url: str
    results: list[str]
