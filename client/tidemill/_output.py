"""What a run shows: talk and progress on standard error, the output of containers where it belongs.

Without a terminal these are plain lines; on one, `tidemill._terminal` draws. Only one output is active in
a process; without one nothing is shown at all.
"""

import contextlib
import datetime
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any, Protocol

from tidemill import _runtime
from tidemill._printer import Printer
from tidemill._wire.messages import LogRecord
from tidemill.config import config

STDOUT, STDERR, OWN = 1, 2, 3  # `LogRecord.stream`


class MapProgress(Protocol):
    """How far one map is. Cheap to call for every batch."""

    def update(self, done: int, total: int | None) -> None:
        """Say how many inputs are finished, and of how many if that is known."""

    def close(self) -> None:
        """Take it off the screen."""


class NoProgress:
    """Progress that nobody sees."""

    def update(self, done: int, total: int | None) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Stamps:
    """Puts the time in front of lines, whichever records they come in."""

    def __init__(self) -> None:
        self._begun: set[tuple[str, int]] = set()  # containers and streams in the middle of a line

    def stamp(self, record: LogRecord) -> LogRecord:
        """Return a record with the time at each beginning of a line."""
        where = record.container, record.stream
        clock = datetime.datetime.fromtimestamp(record.time, datetime.UTC).astimezone()
        prefix = f"{clock:%H:%M:%S}.{clock.microsecond // 1000:03d} "
        text = record.text.removesuffix("\n")
        is_ended = len(text) < len(record.text)
        stamped = ("" if where in self._begun else prefix) + text.replace("\n", f"\n{prefix}")
        if is_ended:
            self._begun.discard(where)
        else:
            self._begun.add(where)
        return record._replace(text=f"{stamped}\n" if is_ended else stamped)


class Output:
    """Plain lines. With `quiet` only the output of containers, warnings and errors."""

    def __init__(self, *, quiet: bool = False, timestamps: bool = False) -> None:
        self.quiet = quiet
        self._stamps = Stamps() if timestamps else None
        self._newline = "\n"
        self._printer = Printer(self._sink, self._descriptor)

    # --- talk

    def status(self, text: str) -> None:
        """Show what is being done, until the next status; an empty text ends it."""

    def line(self, text: str) -> None:
        """Say that a step is done."""
        if not self.quiet:
            self._talk(text)

    def warn(self, text: str, hint: str = "") -> None:
        """Say that something is not as it should be."""
        self._talk(f"warning: {text}" + (f"\nhint: {hint}" if hint else ""))

    def map_progress(self, name: str) -> MapProgress:  # noqa: ARG002 - lines show none
        """Show the progress of a map over a function."""
        return NoProgress()

    def _talk(self, text: str) -> None:
        self._printer.write(STDERR, text + "\n")

    # --- the output of containers

    def logs(self, records: Iterable[LogRecord]) -> None:
        """Print what containers printed, byte for byte, to the stream that they printed it to."""
        if self._stamps is not None:
            records = map(self._stamps.stamp, records)
        for is_output, group in itertools.groupby(records, lambda record: record.stream == STDOUT):
            self._printer.write(STDOUT if is_output else STDERR, "".join(record.text for record in group))

    def drain(self) -> None:
        """Wait, for a bounded time, until everything is printed."""
        self._printer.drain()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Leave the screen to somebody else, who has the terminal raw, while the block runs."""
        self.drain()
        self._newline = "\r\n"
        try:
            yield
        finally:
            self._newline = "\n"

    def open(self) -> None:
        """Take the screen."""

    def close(self) -> None:
        """Give the screen back. Everything that arrived is printed first."""
        self.drain()

    def _sink(self, stream: int, text: str) -> None:
        _write(_standard(stream), text.replace("\n", self._newline))

    @staticmethod
    def _descriptor(stream: int) -> int | None:
        try:
            return _standard(stream).fileno()
        except (OSError, ValueError, AttributeError):
            return None


def _standard(stream: int) -> IO[str]:
    return sys.stdout if stream == STDOUT else sys.stderr


def _write(file: IO[str], text: str) -> None:
    """Write text to a file; what its encoding does not have is escaped, a reader that left is no error."""
    with contextlib.suppress(BrokenPipeError, ValueError):
        try:
            file.write(text)
        except UnicodeEncodeError as error:
            file.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        file.flush()


# --- the active one


class _Active:
    output: Output | None = None


_active = _Active()


def current() -> Output | None:
    """Return the active output, or None when nothing is to be shown."""
    return _active.output


@contextlib.contextmanager
def enable_output() -> Iterator[None]:
    """Show progress and the output of containers while an app runs in this block.

    Example:
        with tidemill.enable_output():
            with app.run():
                f.remote()
    """
    with show():
        yield


@contextlib.contextmanager
def show(*, quiet: bool = False, timestamps: bool = False) -> Iterator[None]:
    """Show what runs in this block; within another one, or in a container, it changes nothing.

    Args:
        quiet: only the output of containers, warnings and errors.
        timestamps: put the time in front of each line that a container printed.
    """
    if _active.output is not None or not _runtime.is_local():
        yield
        return
    output = _active.output = _make(quiet=quiet, timestamps=timestamps)
    try:
        output.open()
        with _warnings_shown(output):
            yield
    finally:
        _active.output = None
        output.close()


def _make(*, quiet: bool, timestamps: bool) -> Output:
    if quiet or not is_terminal(sys.stderr):
        return Output(quiet=quiet, timestamps=timestamps)
    from tidemill._terminal import TerminalOutput

    return TerminalOutput(timestamps=timestamps)


@contextlib.contextmanager
def _warnings_shown(output: Output) -> Iterator[None]:
    """Show what the SDK logs, unless the program takes care of its logs itself."""
    import logging

    logger = logging.getLogger("tidemill")
    if logger.hasHandlers():
        yield
        return

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            output.warn(record.getMessage())

    handler = Handler(config["loglevel"])
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def is_terminal(file: Any) -> bool:
    """Return whether a file is a terminal that can move its cursor."""
    return bool(getattr(file, "isatty", bool)()) and os.environ.get("TERM", "") not in ("dumb", "unknown")
