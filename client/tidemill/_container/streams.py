"""`sys.stdout` and `sys.stderr` of user code: every write knows its input from a context variable."""

import contextvars
import io
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from tidemill._container.guard import Guard
from tidemill._container.outbox import Outbox
from tidemill._runtime import current_input


class TaggedOutput(io.RawIOBase):
    """What is under `sys.stdout` or `sys.stderr`: bytes become LOG frames with the input's id."""

    def __init__(self, stream: int, outbox: Outbox, guard: Guard) -> None:
        super().__init__()
        self._stream = stream
        self._outbox = outbox
        self._guard = guard
        self._owner = os.getpid()

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that subprocesses write to: init's pipe."""
        return self._stream

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """Send bytes on their way. A process that user code forked writes into the pipe instead."""
        content = bytes(data)
        if os.getpid() != self._owner:
            return os.write(self._stream, content)
        now = current_input.get()
        self._guard.hold()
        try:
            self._outbox.log(self._stream, content.decode("utf-8", "replace"), now.input_id if now else "")
        finally:
            self._guard.release()
        return len(content)


def replace_standard_streams(outbox: Outbox, guard: Guard) -> None:
    """Put tagged writers in place of `sys.stdout` and `sys.stderr`."""
    for stream, name in ((1, "stdout"), (2, "stderr")):
        raw = TaggedOutput(stream, outbox, guard)
        writer = io.TextIOWrapper(
            raw,  # type: ignore[type-var]  # no buffer in between: nothing stays behind in it
            encoding="utf-8",
            errors="backslashreplace",
            write_through=True,
        )
        setattr(sys, name, writer)
        setattr(sys, f"__{name}__", writer)


def carry_context_into_threads() -> None:
    """Have every thread begin in the context of whoever started it, so that it knows its input.

    The threads of a pool are started once and used for every input: there each piece of work carries
    its own context. `concurrent.futures` is patched when its first thread starts, for who never
    imports it should not pay for it.
    """
    original = threading.Thread.start

    def start(self: threading.Thread) -> None:
        self.run = _in_context(self.run)  # type: ignore[method-assign]
        pool = sys.modules.get("concurrent.futures.thread")
        if pool is not None:
            _carry_context_into_pools(pool.ThreadPoolExecutor)
        original(self)

    threading.Thread.start = start  # type: ignore[method-assign]


def _carry_context_into_pools(executor: type) -> None:
    original = executor.submit  # type: ignore[attr-defined]
    if getattr(original, "carries_context", False):
        return

    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(self, _in_context(fn), *args, **kwargs)

    submit.carries_context = True  # type: ignore[attr-defined]
    executor.submit = submit  # type: ignore[attr-defined]


def _in_context(function: Callable[..., Any]) -> Callable[..., Any]:
    context = contextvars.copy_context()

    def run(*args: Any, **kwargs: Any) -> Any:
        return context.run(function, *args, **kwargs)

    return run
