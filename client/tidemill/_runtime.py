"""Where this code runs: in a caller's process or in a container, and for which input."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill._bus.protocol import Bus
    from tidemill._wire.control import FunctionHandle


@dataclass(frozen=True, slots=True)
class CurrentInput:
    """The input that the present context executes."""

    call: str
    index: int
    input_id: str
    root: str


@dataclass(slots=True)
class Container:
    """What the runner knows about its own container. `connect` opens the bus over the worker."""

    id: str
    app_id: str
    app_name: str
    function: str
    environment: str
    handles: "dict[str, FunctionHandle]"
    bus: "Bus | None" = None


container: Container | None = None  # set once by the runner, before user code is imported

current_input: ContextVar[CurrentInput | None] = ContextVar("tidemill_current_input", default=None)


def is_local() -> bool:
    """Return False inside a container that runs a function, True everywhere else."""
    return container is None


def current_input_id() -> str | None:
    """Return the id (`in-...`) of the input that is being executed, or None outside of one."""
    now = current_input.get()
    return now.input_id if now else None


def current_function_call_id() -> str | None:
    """Return the id (`fc-...`) of the call whose input is being executed, or None outside of one."""
    now = current_input.get()
    return now.call if now else None
