"""What is said while the server is away: that it is, and what to do. Calls wait for it all the same."""

import asyncio
from collections.abc import Callable

from tidemill._bus.protocol import Bus
from tidemill._caller import Caller, warn

PATIENCE = 1.0  # seconds for which nothing is said: another node of the broker may take over
LOOKS = 30  # with so much time between them

LOST = "the connection to the server is lost; what waits goes on when it is back"
LOST_HINT = "Ctrl-C ends this; `tidemill status` tells what runs on this machine"
DOWN = "the stack on this machine was taken down; what waits goes on when it is back"
DOWN_HINT = "`tidemill up` starts it again, Ctrl-C ends this"


class Outage:
    """Watches over the connection of one session. `is_down` tells whether its stack was taken down."""

    def __init__(self, bus: Bus, caller: Caller, is_down: Callable[[], bool]) -> None:
        self._caller = caller
        self._is_down = is_down
        self._due: asyncio.TimerHandle | None = None
        self._looks = 0  # since the connection was lost
        self._is_told = False  # that it was
        undo = bus.on_disconnect(self._lost), bus.on_reconnect(self._back)

        async def close() -> None:
            self._back()
            for each in undo:
                each()

        caller.at_close(close)

    def _lost(self) -> None:
        if self._due is None and not self._looks:
            self._look_later()

    def _look_later(self) -> None:
        self._due = asyncio.get_running_loop().call_later(PATIENCE, self._tell)

    def _tell(self) -> None:
        """Say once that the server is away, to the first who waits, and once that it is so for a reason."""
        self._due = None
        self._looks += 1
        is_down = self._is_down()
        if self._caller.is_waiting and (is_down or not self._is_told):
            self._is_told = True
            warn(*((DOWN, DOWN_HINT) if is_down else (LOST, LOST_HINT)))
        if not is_down and self._looks < LOOKS:  # a stack that is taken down loses its broker first
            self._look_later()

    def _back(self) -> None:
        self._looks = 0
        self._is_told = False
        if self._due is not None:
            self._due.cancel()
            self._due = None
