"""Who reads what the worker sends: a thread of our own, or the event loop that answers web requests.

A thread can always read, also while user code keeps the loop for itself and waits for what is to be read.
But then each request begins with a change of threads. So from the first request on the loop reads, until user
code asks the worker for something, or the loop ends. From then on it is the thread again.
"""

import os
import threading
from _queue import SimpleQueue
from collections.abc import Callable

from tidemill._container.sockets import Frame, Reader

Read = Callable[[], bool]


class Reading:
    """Reads frames, and has `handle` take each; calls `end` when the worker is gone, or cannot be understood.

    `watch` has a loop call what it is given whenever there is something to read, for as long as that returns
    True.
    """

    def __init__(self, reader: Reader, handle: Callable[[Frame], None], end: Callable[[], None]) -> None:
        self._reader = reader
        self._handle = handle
        self._end = end
        self._watch: Callable[[Read], None] | None = None
        self._on_loop = False
        self._only_thread = False
        self._taking = threading.Lock()  # frames are read and handled on the loop
        self._bell: SimpleQueue[None] = SimpleQueue()

    # --- any thread

    def let_loop(self, watch: Callable[[Read], None]) -> None:
        """Let a loop read from the next frame on, unless it may not any more."""
        self._watch = watch

    def by_thread(self) -> None:
        """Have the thread read from now on, for good."""
        self._only_thread = True
        self._bell.put(None)

    # --- the thread

    def run(self) -> None:
        """Read to the end, but for the time for which the loop does."""
        while self._take(wait=True):
            if self._watch is not None and not self._only_thread:
                self._on_loop = True
                self._watch(self._on_readable)
                self._bell.get()
                with self._taking:
                    self._on_loop = False

    # --- the loop

    def _on_readable(self) -> bool:
        with self._taking:
            return self._on_loop and self._take(wait=False)

    # --- both

    def _take(self, *, wait: bool) -> bool:
        """Handle what comes next, or has come; return False at the end."""
        try:
            frames = self._reader.receive(wait=wait)
            if frames is not None:
                for frame in frames:
                    self._handle(frame)
                return True
        except BaseException as error:
            os.write(2, f"tidemill: the worker sent what cannot be understood: {error!r}\n".encode())
        self._end()
        return False
