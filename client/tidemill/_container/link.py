"""What user code asks the worker for while it runs: the runner's end of `tidemill._bus.socket`.

Requests go out from any thread. Answers and deliveries come in on the reading thread and are handed to
the event loop of the bus in batches: one wake-up for everything that came meanwhile.
"""

import itertools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidemill._container.frames import FromRunner
from tidemill._container.guard import Guard
from tidemill._container.outbox import Outbox
from tidemill._container.sockets import Frame

if TYPE_CHECKING:
    from tidemill._bus.socket import SocketBus


class Link:
    """The way to the worker's bus."""

    def __init__(self, outbox: Outbox, guard: Guard, max_payload: int, on_use: Callable[[], None]) -> None:
        """Make it; `on_use` is called before anything is asked for the first time."""
        self._outbox = outbox
        self._guard = guard
        self._max_payload = max_payload
        self._on_use = on_use
        self._bus: SocketBus | None = None
        self._arrived: deque[Frame] = deque()
        self._numbers = itertools.count(1)
        self._detached = False

    def connect(self) -> "SocketBus | None":
        """Return the bus, opened on the running event loop if it is not open."""
        if self._detached:
            return None
        if self._bus is None or self._bus.is_closed():
            from tidemill._bus.socket import SocketBus

            self._on_use()
            self._bus = SocketBus(self, self._max_payload)
        return self._bus

    def number(self) -> int:
        """Return a number that no request and no subscription of this container has had."""
        return next(self._numbers)

    def ask(self, number: int, operation: str, *arguments: object) -> None:
        """Send a request to the worker."""
        self._guard.hold()
        try:
            self._outbox.frame(FromRunner.ASK, number, operation, arguments)
        finally:
            self._guard.release()

    def take(self) -> list[Frame]:
        """Return the frames that have arrived. For the bus, on its loop."""
        taken = []
        while self._arrived:
            taken.append(self._arrived.popleft())
        return taken

    def arrive(self, frame: Frame) -> None:
        """Hand a frame over to the bus. For the reading thread."""
        bus = self._bus
        if bus is not None:
            self._arrived.append(frame)
            if len(self._arrived) == 1:
                bus.wake()

    def detach(self) -> None:
        """Let go, in a process that user code forked."""
        self._detached = True
        self._bus = None
