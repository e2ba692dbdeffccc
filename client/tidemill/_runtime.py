"""Where this code runs: in a caller's process or in a container, and for which input."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tidemill._bus.protocol import Bus
    from tidemill._wire.control import FunctionHandle


class CurrentInput(NamedTuple):
    """The input that the present context executes."""

    call: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks an input
    input_id: str
    root: str
    plain: bool = False  # whoever called reads no pickles


class Container:
    """What the runner knows about its own container.

    `connect` returns the bus over the worker (None where there is none any more, as in a forked child);
    `interact` connects the standard streams with the caller's terminal; `handles` are the functions of the
    same app, by name; `own` is what a class is called through in this very container's pool. `slots` are
    the inputs that may run at once, `limit` tells the worker another number, or 0 to take no more. `note`
    hears of each input whose id user code has asked for.
    """

    __slots__ = (
        "_handles",
        "_own",
        "_raw_handles",
        "app_id",
        "app_name",
        "connect",
        "environment",
        "function",
        "id",
        "interact",
        "limit",
        "most_slots",
        "note",
        "slots",
        "workspace",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - the name of the field
        app_id: str,
        app_name: str,
        function: str,
        environment: str,
        handles: "dict[str, Any]",
        connect: "Callable[[], Bus | None]" = lambda: None,
        workspace: str = "",
        interact: "Callable[[], None]" = lambda: None,
        own: "dict[str, Any] | None" = None,
        slots: int = 1,
        limit: Callable[[int], None] = lambda _inputs: None,
    ) -> None:
        """Remember all this; `handles` may be `FunctionHandle`s or maps of their fields."""
        self.id = id
        self.app_id = app_id
        self.app_name = app_name
        self.function = function
        self.environment = environment
        self.connect = connect
        self.workspace = workspace
        self.interact = interact
        self._own = own
        self.slots = self.most_slots = slots
        self.limit = limit
        self.note: Callable[[str], None] = _ignore
        self._raw_handles = handles
        self._handles: dict[str, FunctionHandle] | None = None

    @property
    def bus(self) -> "Bus | None":
        """Return the bus over the worker. It belongs to the event loop on which it is first asked for."""
        return self.connect()

    @property
    def own(self) -> "FunctionHandle | None":
        """Return what this container's class is called through, with its options and parameters."""
        from tidemill._wire.control import FunctionHandle

        return None if self._own is None else FunctionHandle(**self._own)

    @property
    def handles(self) -> "dict[str, FunctionHandle]":
        """Return the handles. They are read at first use: many functions never call another."""
        if self._handles is None:
            from tidemill._wire.control import FunctionHandle

            self._handles = {
                name: FunctionHandle(**handle) if isinstance(handle, dict) else handle
                for name, handle in self._raw_handles.items()
            }
        return self._handles


container: Container | None = None  # set once by the runner, before user code is imported

current_input: ContextVar[CurrentInput | None] = ContextVar("tidemill_current_input", default=None)


def is_local() -> bool:
    """Return False inside a container that runs a function, True everywhere else."""
    return container is None


def current_input_id() -> str | None:
    """Return the id (`in-...`) of the input that is being executed, or None outside of one."""
    now = _noted()
    return now.input_id if now else None


def current_function_call_id() -> str | None:
    """Return the id (`fc-...`) of the call whose input is being executed, or None outside of one."""
    now = _noted()
    return now.call if now else None


def _noted() -> CurrentInput | None:
    now = current_input.get()
    if now is not None and container is not None:
        container.note(now.input_id)
    return now


def _ignore(_input_id: str) -> None:
    """Do nothing: most inputs are recorded anyway."""


def interact() -> None:
    """Connect this function's standard streams with the terminal of whoever runs it, until the input ends.

    From then on `input()`, `print()` and everything else that talks with a terminal does so there.
    `breakpoint()` and `input()` do it by themselves in an interactive run.

    Raises:
        InvalidError: this is no container, or the run is not interactive (`tidemill run -i`).
        InteractiveTimeoutError: the terminal does not answer.
    """
    if container is None:
        from tidemill.exception import InvalidError

        raise InvalidError("interact() is for functions that run in a container")
    container.interact()
