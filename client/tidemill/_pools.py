"""The lines between a caller and the scheduler, pool by pool: bells of demand, and trouble."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from tidemill import exception
from tidemill._bus.protocol import Bus, BusError, Message, Subscription
from tidemill._wire import coding, subjects
from tidemill._wire.control import FULL_FOR, Trouble

RING_EVERY = 0.05  # seconds between the bells of a pool while inputs are submitted
LATELY = 1.0  # seconds since its last answer for which a pool is taken to be awake
PATIENCE = 0.01  # seconds that a single input of such a pool may take before the bell is worth its message
KEEP = 60.0  # seconds for which a pool that nobody waits for is still listened to

_log = logging.getLogger("tidemill")


class Line:
    """One pool as this process knows it."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.rung = float("-inf")
        self.ring_later: asyncio.TimerHandle | None = None
        self.ring_unless_answered: asyncio.TimerHandle | None = None
        self.waiting = 0  # calls that wait for outputs
        self.used = float("-inf")
        self.subscription: Subscription | None = None
        self.is_subscribing = False
        self.told: set[str] = set()


class Pools:
    """Every pool that this process calls."""

    def __init__(
        self,
        bus: Bus,
        workspace: str,
        on_final_trouble: Callable[[Trouble], None],
        on_failing: Callable[[Trouble], None],
        warn: Callable[[str, str], None],
    ) -> None:
        """Make it; `warn` shows the user a message and a hint, `on_failing` hears of starts that fail."""
        self._bus = bus
        self._workspace = workspace
        self._warn = warn
        self._on_final_trouble = on_final_trouble
        self._on_failing = on_failing
        self._loop = asyncio.get_running_loop()
        self._lines: dict[str, Line] = {}
        self.full: dict[str, tuple[float, Trouble]] = {}  # pools to which nothing is added, until when
        self._tasks: set[asyncio.Task[None]] = set()

    def enter(self, pool: str) -> None:
        """Note that a call waits for this pool, and listen to its trouble."""
        line = self._line(pool)
        line.waiting += 1
        self._keep_listening(line)

    def leave(self, pool: str) -> None:
        """Note that a call waits no more."""
        line = self._lines[pool]
        line.waiting -= 1
        line.used = time.monotonic()
        if not line.waiting and line.ring_unless_answered is not None:
            line.ring_unless_answered.cancel()
            line.ring_unless_answered = None

    def ring(self, pool: str, *, patiently: bool = False) -> None:
        """Say that the pool has work: at once, or, when that was just said, once more soon.

        Patiently: of a pool that has just answered another call it is said only if nothing comes for a
        moment. One call after the other then costs the scheduler nothing.
        """
        line = self._line(pool)
        now = time.monotonic()
        wait = line.rung + RING_EVERY - now
        if patiently and now - line.used < LATELY:
            if line.ring_unless_answered is None:
                line.ring_unless_answered = self._loop.call_later(max(wait, PATIENCE), self._ring, line)
        elif wait <= 0:
            self._ring(line)
        elif line.ring_later is None:
            line.ring_later = self._loop.call_later(wait, self._ring, line)

    def refusal(self, pool: str) -> exception.ResourceExhaustedError | None:
        """Return why nothing may be added to a pool now, if that is so."""
        until, trouble = self.full.get(pool, (0.0, None))
        if trouble is None:
            return None
        if until < time.monotonic():
            del self.full[pool]
            return None
        return exception.ResourceExhaustedError(trouble.message, hint=trouble.hint)

    def ring_waiting(self) -> None:
        """Ring for every pool that a call waits for, and forget those that nobody calls any more."""
        now = time.monotonic()
        for line in list(self._lines.values()):
            if line.waiting:
                self._keep_listening(line)
                self._ring(line)
            elif now - max(line.used, line.rung) > KEEP:
                self._forget(line)

    def _line(self, pool: str) -> Line:
        line = self._lines.get(pool)
        if line is None:
            line = self._lines[pool] = Line(pool)
        return line

    def _ring(self, line: Line) -> None:
        _cancel_timers(line)
        line.rung = time.monotonic()
        with suppress(BusError):  # not connected: it is rung again each second while anything is outstanding
            self._bus.publish(subjects.demand(self._workspace, line.pool), b"")

    def _forget(self, line: Line) -> None:
        del self._lines[line.pool]
        self.full.pop(line.pool, None)
        if line.subscription is not None:
            task = self._loop.create_task(line.subscription.close())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _keep_listening(self, line: Line) -> None:
        """Subscribe, if that has not succeeded yet: without a connection it fails."""
        if line.subscription is None and not line.is_subscribing:
            line.is_subscribing = True
            task = self._loop.create_task(self._listen(line), name=f"listen to {line.pool}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _listen(self, line: Line) -> None:
        try:
            subject = subjects.trouble(self._workspace, line.pool)
            line.subscription = await self._bus.subscribe(subject, self._on_trouble)
        except BusError as error:
            _log.debug("trouble of %s cannot be heard: %s", line.pool, error)
        finally:
            line.is_subscribing = False

    def _on_trouble(self, message: Message) -> None:
        try:
            trouble = coding.decode(Trouble, message.data)
        except ValueError as error:
            _log.debug("trouble that cannot be read: %s", error)
            return
        line = self._lines.get(trouble.pool)
        if trouble.full:
            self.full[trouble.pool] = time.monotonic() + FULL_FOR, trouble
            return
        if line is None or not line.waiting:
            return
        if trouble.final:
            self._on_final_trouble(trouble)
            return
        if trouble.failure:
            self._on_failing(trouble)
        if trouble.message not in line.told and len(line.told) < 100:
            line.told.add(trouble.message)
            self._warn(f"inputs are waiting: {trouble.message}", trouble.hint)

    async def close(self) -> None:
        """End the subscriptions and timers."""
        for line in self._lines.values():
            _cancel_timers(line)
            if line.subscription is not None:
                await line.subscription.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _cancel_timers(line: Line) -> None:
    for timer in (line.ring_later, line.ring_unless_answered):
        if timer is not None:
            timer.cancel()
    line.ring_later = line.ring_unless_answered = None
