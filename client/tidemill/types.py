"""What the API returns: plain values."""

from dataclasses import dataclass

__all__ = ["FunctionAutoscalerSettings", "FunctionCurrentStats"]


@dataclass(frozen=True, slots=True)
class FunctionAutoscalerSettings:
    """How many containers a function may have.

    `max_containers` is None where only the machines limit them; `scaledown_window` is the time in seconds
    after which an idle container ends.
    """

    min_containers: int
    max_containers: int | None
    scaledown_window: float
    buffer_containers: int


@dataclass(frozen=True, slots=True)
class FunctionCurrentStats:
    """What a function does at this moment.

    Args:
        backlog: inputs that wait. Inputs of one map that travel together count as one.
        num_total_runners: containers that run or start.
        num_running_inputs: inputs that containers have taken, counted in the same way.
        input_headroom: inputs that the containers could take at once, beside those.
    """

    backlog: int
    num_total_runners: int
    num_running_inputs: int
    input_headroom: int
