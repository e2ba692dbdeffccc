"""What a call led to: inputs, their states, and the inputs that they called in turn."""

from dataclasses import dataclass, field
from enum import IntEnum

from tidemill._wire.messages import Status


class InputStatus(IntEnum):
    """The state of an input."""

    PENDING = 0
    SUCCESS = 1
    FAILURE = 2
    INIT_FAILURE = 3
    TERMINATED = 4
    TIMEOUT = 5


FROM_OUTPUT: dict[int, InputStatus] = {
    Status.SUCCESS: InputStatus.SUCCESS,
    Status.DONE: InputStatus.SUCCESS,
    Status.FAILURE: InputStatus.FAILURE,
    Status.TIMEOUT: InputStatus.TIMEOUT,
    Status.CANCELLED: InputStatus.TERMINATED,
}


@dataclass(frozen=True)
class InputInfo:
    """One input of a call graph. `task_id` is the container that ran it, empty while none has."""

    input_id: str
    function_call_id: str
    task_id: str
    status: InputStatus
    function_name: str
    module_name: str
    children: list["InputInfo"] = field(default_factory=list)
