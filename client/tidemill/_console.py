"""This process's own terminal, or whatever its standard streams are, at one end of a duplex stream.

    keyboard ──> (a thread) ──> pieces ──> stream        window size ──> control frames
    screen   <── (a thread) <── pieces <── stream

While it is connected the terminal is raw: every key goes to the other side, Ctrl-C too. However the
connection ends, and at the latest when this process does, the terminal is as it was before.
"""

import asyncio
import atexit
import concurrent.futures
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tidemill import exception
from tidemill._duplex import Duplex

STDIN, STDOUT, STDERR = 0, 1, 2
READ = 64 * 1024  # bytes
LOOK = 0.2  # seconds between looks at the window's size: a signal would need the main thread


def is_terminal() -> bool:
    """Return whether somebody can type here and see what is written."""
    return os.isatty(STDIN) and os.isatty(STDOUT)


def size() -> tuple[int, int]:
    """Return the rows and columns of the terminal, 24 and 80 where it does not tell."""
    with suppress(OSError):
        columns, rows = os.get_terminal_size(STDOUT)
        if rows and columns:
            return rows, columns
    return 24, 80


async def attach(stream: Duplex, *, terminal: bool) -> Any:
    """Connect the standard streams with an opened stream; return its last word when it has ended.

    Args:
        stream: pieces with the tag 2 are written to standard error, all others to standard output.
        terminal: make the terminal raw, and tell the other side the size of its window.

    Raises:
        Error: the stream broke.
    """
    flush()
    with _raw() if terminal else _as_it_is():
        keyboard = _Keyboard(stream, asyncio.get_running_loop(), watch_size=terminal)
        keyboard.start()
        try:
            async for tag, data in stream:
                await asyncio.to_thread(_write, STDERR if tag == STDERR else STDOUT, data)
        finally:
            await asyncio.to_thread(keyboard.stop)
    stream.end()
    return stream.word


def flush() -> None:
    """Let what was printed before stand in front of what comes."""
    for file in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            file.flush()


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


class _Keyboard:
    """Reads standard input in a thread of its own, which can be stopped without another key."""

    def __init__(self, stream: Duplex, loop: asyncio.AbstractEventLoop, *, watch_size: bool) -> None:
        self._stream = stream
        self._loop = loop
        self._watch_size = watch_size
        self._size = size()
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="tidemill-keyboard", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Read no more; what was not read stays for whoever reads next."""
        os.close(self._waker)
        self._thread.join()
        os.close(self._wake)

    def _run(self) -> None:
        # What is sent fails when the stream is over, and the loop may be gone: then nobody needs more input.
        with suppress(exception.Error, OSError, RuntimeError, concurrent.futures.CancelledError):
            while self._read():
                pass

    def _read(self) -> bool:
        """Send what was typed; return False when there will be no more."""
        timeout = LOOK if self._watch_size else None
        ready = select.select([STDIN, self._wake], [], [], timeout)[0]
        if self._wake in ready:
            return False
        if self._watch_size and (now := size()) != self._size:
            self._size = now
            self._loop.call_soon_threadsafe(self._stream.control, "resize", list(now))
        if STDIN in ready:
            data = os.read(STDIN, READ)
            if not data:
                self._loop.call_soon_threadsafe(self._stream.end)
                return False
            asyncio.run_coroutine_threadsafe(self._stream.send(data), self._loop).result()
        return True


# --- the terminal's mode


class _Mode:
    """How the terminal was, while it is raw."""

    before: list[Any] | None = None


@contextmanager
def _raw() -> Iterator[None]:
    import termios
    import tty

    _Mode.before = termios.tcgetattr(STDIN)
    atexit.register(restore)
    try:
        tty.setraw(STDIN, termios.TCSADRAIN)  # what was typed already is for the other side
        yield
    finally:
        restore()
        atexit.unregister(restore)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def restore() -> None:
    """Give the terminal the mode that it had, if it is raw."""
    before, _Mode.before = _Mode.before, None
    if before is not None:
        import termios

        with suppress(termios.error):  # it is gone
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
