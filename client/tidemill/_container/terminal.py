"""The caller's terminal in a container: lent to one input at a time, and given back at its end.

interact() ── INTERACT ──> worker ──> the caller lends its terminal
           <── TERMINAL ── a terminal that init has made: it takes the place of the standard streams
end of the input ── RELEASE ──> all output gets there ──> the caller has it back ── RELEASED ──>
"""

import builtins
import os
import signal
import sys
import threading
from _queue import Empty, SimpleQueue
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from tidemill import exception
from tidemill._container.frames import FromRunner
from tidemill._container.outbox import Outbox
from tidemill._container.sessions import take_terminal
from tidemill._wire import failure

PATIENCE = 30.0  # seconds for the terminal to be there; the worker says sooner why it is not


class Terminal:
    """What `interact()`, `breakpoint()` and `input()` of user code go through, in whichever thread."""

    def __init__(self, outbox: Outbox, on_use: Callable[[], None], *, interactive: bool) -> None:
        """Make it; `on_use` is called before the caller is asked, who is then waited for."""
        self.is_attached = False
        self.on_interrupt: Callable[[], None] = _raise_interrupt
        self._is_ours = False  # from the attachment until the caller has the terminal back
        self._one_at_a_time = threading.Lock()
        self._outbox = outbox
        self._on_use = on_use
        self._interactive = interactive
        self._answers: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._released: SimpleQueue[None] = SimpleQueue()
        self._descriptors: list[int] = []  # the usual ones, meanwhile
        self._streams: tuple[Any, ...] = ()
        self._usual_handler: Any = None

    def install(self) -> None:
        """Have user code come here when it wants to talk with somebody. For the main thread."""
        sys.breakpointhook = self.breakpoint
        if self._interactive:
            self._usual_handler = signal.signal(signal.SIGINT, self._on_signal)
            original = builtins.input

            def ask(prompt: object = "", /) -> str:
                self.attach()
                return original(prompt)

            builtins.input = ask

    def breakpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Stand in for `sys.breakpointhook`: debug where `breakpoint()` stands, at the caller's terminal."""
        if os.environ.get("PYTHONBREAKPOINT"):  # the user has other ideas
            return sys.__breakpointhook__(*args, **kwargs)  # noqa: T100
        self.attach("breakpoint()")
        import pdb  # noqa: T100 - that is what it is for

        debugger = pdb.Pdb()
        debugger.set_trace(sys._getframe(1))
        return None

    def attach(self, what: str = "interact()") -> None:
        """Connect the standard streams with the caller's terminal until the input has ended.

        Raises:
            InvalidError: this is no interactive run.
            InteractiveTimeoutError: the caller does not answer.
            Error: the caller cannot lend its terminal.
        """
        if not self._interactive:
            raise exception.InvalidError(
                f"{what} needs somebody to talk with: this is not an interactive run",
                hint="run it with `tidemill run -i`, or in `app.run(interactive=True)`",
            )
        with self._one_at_a_time:
            if not self.is_attached:
                self._ask()

    def _ask(self) -> None:
        _empty(self._answers)
        _empty(self._released)
        self._on_use()
        self._outbox.frame(FromRunner.INTERACT)
        try:
            device, told = self._answers.get(timeout=PATIENCE)
        except Empty:
            raise exception.InteractiveTimeoutError("the worker makes no terminal") from None
        if not device:
            raise failure.to_exception(told)
        self._connect(device, told)

    def _connect(self, device: str, term: str) -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        try:
            terminal = os.open(device, os.O_RDWR)
        except OSError as error:
            raise exception.InteractiveTimeoutError(f"the terminal is gone already: {error}") from error
        with suppress(OSError):  # it is ours since the last time
            take_terminal(terminal)
        if term:
            os.environ["TERM"] = term
        self._descriptors = [os.dup(number) for number in range(3)]
        for number in range(3):
            os.dup2(terminal, number)
        os.close(terminal)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        sys.stdin = _text(0, "r")
        sys.stdout, sys.stderr = _text(1, "w"), _text(2, "w")
        self.is_attached = self._is_ours = True

    def release(self) -> None:
        """Give the terminal back, if there is one; return when the caller has it."""
        if self.is_attached:
            with self._one_at_a_time:
                self._disconnect()

    def _disconnect(self) -> None:
        self.is_attached = False
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = self._streams
        for number, usual in enumerate(self._descriptors):
            os.dup2(usual, number)
            os.close(usual)
        self._outbox.frame(FromRunner.RELEASE)
        self._released.get()  # at the latest when the stream to the caller has been given up
        self._is_ours = False  # not before: a late Ctrl-C is no signal to stop

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Take SIGINT for a Ctrl-C where there is a terminal, else for what it usually is."""
        if self._is_ours:
            self.on_interrupt()
        else:
            self._usual_handler(number, frame)

    # --- the reading thread

    def arrive(self, device: str, told: Any) -> None:
        """Take the worker's answer."""
        self._answers.put((device, told))

    def released(self) -> None:
        """Hear that the caller has its terminal back."""
        self._released.put(None)


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


def _text(fd: int, mode: str) -> Any:
    return open(fd, mode, encoding="utf-8", errors="replace", buffering=1, closefd=False)


def _empty(queue: "SimpleQueue[Any]") -> None:
    with suppress(Empty):
        while True:
            queue.get_nowait()
