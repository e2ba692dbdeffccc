"""Writing from the SDK's loop to standard output and error, without ever blocking the loop.

A terminal that was paused or a pager that waits would otherwise hold up heartbeats and results. What can
be written at once is written at once, in order with everything else that the process prints; only what
cannot goes through a thread, and what that thread cannot get rid of is cut and said to be.
"""

import select
import threading
from collections import deque
from collections.abc import Callable

PIECE = 4096  # bytes that a pipe takes without blocking when it says that it takes any (PIPE_BUF)
KEPT = 16 << 20  # characters that wait for a slow reader; beyond, the newest are left out
WAIT = 10.0  # seconds that the end waits for a slow reader

Sink = Callable[[int, str], None]  # (1 for output or 2 for errors, text)


class Printer:
    """Gives text to a sink: directly while the descriptor behind it takes it, else from a thread."""

    def __init__(self, sink: Sink, descriptor: Callable[[int], int | None]) -> None:
        self._sink = sink
        self._descriptor = descriptor
        self._waiting: deque[tuple[int, str]] = deque()
        self._size = 0
        self._left_out = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, stream: int, text: str) -> None:
        """Write text, now or as soon as the reader takes it."""
        size = PIECE if text.isascii() else PIECE // 4  # a character has at most four bytes
        while text and not self._waiting and self._takes(stream):
            self._sink(stream, text[:size])
            text = text[size:]
        if text:
            self._put(stream, text)

    def drain(self, timeout: float = WAIT) -> bool:
        """Wait until everything is written; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout)

    def _takes(self, stream: int) -> bool:
        number = self._descriptor(stream)
        if number is None:
            return True  # not a file: it lies in memory
        poll = select.poll()
        try:
            poll.register(number, select.POLLOUT)
            return bool(poll.poll(0))
        except OSError:
            return True  # whatever is wrong, writing tells

    def _put(self, stream: int, text: str) -> None:
        with self._changed:
            if self._size + len(text) > KEPT:
                self._left_out += len(text)
                return
            self._waiting.append((stream, text))
            self._size += len(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tidemill-output", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """Write what waits; end when nothing does."""
        while True:
            with self._changed:
                if not self._waiting:
                    self._thread = None
                    self._changed.notify_all()
                    return
                stream, text = self._waiting[0]
            self._sink(stream, text)  # may block, which is what this thread is for
            with self._changed:
                self._waiting.popleft()
                self._size -= len(text)
                left_out, self._left_out = self._left_out, 0
                if left_out:
                    self._waiting.append((2, f"\n... {left_out:,} characters of output were left out\n"))
