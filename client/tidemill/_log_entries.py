"""What containers printed, as entries: a line each, with where and when it came from. Pure."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field

from tidemill._wire import ids
from tidemill._wire.messages import LogRecord

SOURCES = {1: "stdout", 2: "stderr", 3: "system"}  # of `LogRecord.stream`; system is what Tidemill says
PATIENCE = 1.0  # seconds that the rest of a line is waited for
MAX_LINE = 65_536  # characters of a line that has not ended, after which it is an entry all the same


@dataclass(frozen=True)
class LogEntry:
    """A line that a container printed, with its line break.

    `source` is `stdout`, `stderr` or `system` (said by Tidemill), `object_id` the container. The context
    names what the line belongs to, as far as that is known: `app_id`, `function_id`, `function_name`,
    `function_call_id`, `input_id`, `container_id`.
    """

    message: str
    timestamp: datetime.datetime
    source: str
    object_id: str
    context_ids: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """Which lines are wanted. An empty field asks for nothing in particular.

    `subject` is the filter on the stream; times are unix times.
    """

    subject: str
    app: str = ""
    function: str = ""
    call: str = ""
    container: str = ""
    source: str = ""
    search: str = ""
    since: float = 0.0
    until: float = float("inf")

    def wants(self, record: LogRecord) -> bool:
        """Return whether a record may hold wanted lines."""
        return (
            (not self.function or record.function == self.function)
            and (not self.container or record.container == self.container)
            and (not self.source or SOURCES.get(record.stream) == self.source)
            and (not self.call or record.input.startswith(f"{self.inputs}-"))
            and self.since <= record.time < self.until
        )

    @property
    def inputs(self) -> str:
        """What the ids of the call's inputs begin with."""
        return ids.input_id(self.call, 0).rpartition("-")[0]


class Lines:
    """Puts records together to lines. `functions` are the ids of functions by name."""

    def __init__(self, selection: Selection, functions: dict[str, str]) -> None:
        self._selection = selection
        self._functions = functions
        self._open: dict[tuple[str, int, str], tuple[LogRecord, str, str]] = {}  # lines that have not ended

    def add(self, record: LogRecord, app: str) -> Iterator[LogEntry]:
        """Yield the lines that a record ends."""
        if not self._selection.wants(record):
            return
        yield from self._given_up(record.time - PATIENCE)
        key = record.container, record.stream, record.input
        first, _, before = self._open.pop(key, (record, app, ""))
        *whole, rest = (before + record.text).split("\n")
        for line in whole:
            yield from self._entry(first, app, f"{line}\n")
            first = record
        if len(rest) >= MAX_LINE:
            yield from self._entry(first, app, rest)
        elif rest:
            self._open[key] = (first, app, rest)

    @property
    def are_whole(self) -> bool:
        """Whether no line has begun and not ended."""
        return not self._open

    def rest(self) -> Iterator[LogEntry]:
        """Yield what has not ended with a line break."""
        yield from self._given_up(float("inf"))

    def _given_up(self, before: float) -> Iterator[LogEntry]:
        """Yield what began before some time and was not ended."""
        for key in [key for key, (first, _, _) in self._open.items() if first.time < before]:
            first, app, text = self._open.pop(key)
            yield from self._entry(first, app, text)

    def _entry(self, record: LogRecord, app: str, text: str) -> Iterator[LogEntry]:
        if self._selection.search and self._selection.search not in text:
            return
        context = {
            "app_id": app,
            "function_id": self._functions.get(record.function, ""),
            "function_name": record.function,
            "function_call_id": _call_of(record.input),
            "input_id": record.input,
            "container_id": record.container,
        }
        yield LogEntry(
            text,
            datetime.datetime.fromtimestamp(record.time, datetime.UTC),
            SOURCES.get(record.stream, "system"),
            record.container,
            {name: value for name, value in context.items() if value},
        )


def _call_of(input_id: str) -> str:
    try:
        return ids.parse_input_id(input_id)[0]
    except ValueError:
        return ""
