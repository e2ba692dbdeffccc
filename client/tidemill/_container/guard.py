"""Stopping user code that runs in the main thread: at the right input, and never in our own code.

Python runs signal handlers in the main thread, between any two instructions. The handlers here raise only
while the frame of a user's function is active (`active` is set around it) and only if it is that very
input that is to stop, so a signal that comes just too late does nothing. Each cancellation raises once.
Our own code that user code calls, such as `write` of `sys.stdout`, holds the exception off until it has
put its things in order (`holding`).

An input can also be cancelled before its frame is active, while its arguments are read, or between two
pieces of a generator: then `arm` raises.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType

from tidemill.exception import InputCancellation

Key = tuple[int, int]  # chunk, index

LOADING: Key = (-1, -1)  # active while the user's module is imported


class Guard:
    """What stands between signals and the main thread. Made in the main thread."""

    def __init__(self, on_interrupt: Callable[[], None]) -> None:
        self.active: Key | None = None
        self.stopped: Key | None = None  # the last input that a cancellation was raised in
        self.interrupted = False
        self._wanted: set[Key] = set()
        self._interrupt_due = False
        self._key_due = False
        self._main = threading.get_ident()
        self._depth = 0
        self._late = False
        self._on_interrupt = on_interrupt

    def install(self) -> None:
        """Handle the signals."""
        signal.signal(signal.SIGUSR1, self._on_cancel)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_stop)

    def uninstall(self) -> None:
        """Give the signals back their usual meaning, for a process that user code forked."""
        self.active = None
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def arm(self, key: Key) -> None:
        """Say that the user's frame of this input begins; raise if it is to stop already."""
        self.active = key
        self._fire()

    def is_wanted(self, key: Key) -> bool:
        """Return whether this input is to stop."""
        return key in self._wanted or self._interrupt_due

    def want(self, key: Key) -> None:
        """Have this input stop, at the latest when its frame becomes active. From any thread."""
        self._wanted.add(key)

    def signal(self) -> None:
        """Have the main thread look now whether the input that it runs is to stop. From any thread."""
        signal.pthread_kill(self._main, signal.SIGUSR1)

    def forget(self, chunk: int) -> None:
        """Forget the inputs of this chunk that were to stop: it is finished."""
        if self._wanted:
            self._wanted.difference_update([key for key in tuple(self._wanted) if key[0] == chunk])

    # --- our own code inside the user's frame

    def hold(self) -> None:
        """Keep exceptions off until `release`. For the main thread; elsewhere they never come."""
        if threading.get_ident() == self._main:
            self._depth += 1

    def release(self) -> None:
        """Let them come again, those that were kept off first."""
        if threading.get_ident() == self._main:
            self._depth -= 1
            if self._late and not self._depth:
                self._late = False
                self._fire()

    def on_key(self) -> None:
        """Interrupt the user's frame, for a Ctrl-C at its terminal; between two of them it says nothing."""
        if self.active is not None:
            self._key_due = True
            self._fire()

    # --- signals

    def _on_cancel(self, _number: int, _frame: FrameType | None) -> None:
        self._fire()

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Interrupt what runs. Further signals change nothing: the way out is under way."""
        if not self.interrupted:
            self.interrupted = self._interrupt_due = True
            self._on_interrupt()
            self._fire()

    def _fire(self) -> None:
        if self.active is None:
            return
        if self._depth:
            self._late = True
        elif self._interrupt_due:
            self._interrupt_due = False
            raise KeyboardInterrupt
        elif self._key_due:
            self._key_due = False
            raise KeyboardInterrupt
        elif self.active in self._wanted:
            self._wanted.discard(self.active)
            self.stopped = self.active
            raise InputCancellation("the input was cancelled")
