"""The worker's side of a container's bus."""

from typing import TYPE_CHECKING, Any

from tidemill_worker.framing import FrameProtocol
from tidemill_worker.node import Node

if TYPE_CHECKING:
    from tidemill_worker.container import Container


class Bridge:
    """Answers what one container asks."""

    def __init__(self, node: Node, container: "Container", runner: FrameProtocol) -> None:
        self._node = node

    def ask(self, number: int, operation: str, arguments: list[Any]) -> None:
        """Answer."""

    def reconnected(self) -> None:
        """Tell."""

    def close(self) -> None:
        """End."""
