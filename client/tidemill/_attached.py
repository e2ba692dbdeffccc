"""An attached call: one whose outputs come to this process while it waits."""

from typing import Any, Protocol

from tidemill._wire.control import FunctionHandle

RawOutput = list[Any]  # [index, status, [format, data], piece]: an `Output` as it comes off the wire


class Attached(Protocol):
    """A call whose outputs come to this process. All of it happens on the loop."""

    id: str
    handle: FunctionHandle

    def on_outputs(self, items: list[RawOutput], seconds: float, container: str) -> None:
        """Take outputs, in any order, perhaps for the second time."""

    def on_tick(self, now: float) -> None:
        """Look after what depends on time; called each second."""

    def fail(self, error: BaseException) -> None:
        """End: nothing more will come."""

    def oldest(self) -> tuple[int, float] | None:
        """Return the number of the oldest submission without output, and since when there is silence."""
