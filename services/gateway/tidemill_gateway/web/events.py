"""Event streams (`text/event-stream`) as pieces of a body: split into events, with the ids that they set."""

import re
from typing import NamedTuple

MAX_EVENT = 1 << 20  # bytes of one event that is kept

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_ID = re.compile(rb"(?:^|\r\n|\n|\r)id(?:: ?([^\r\n\0]*))?(?=\r\n|\n|\r|$)")


class Event(NamedTuple):
    """One event as it was sent, with the empty line behind it. `id` is None where it sets none."""

    data: bytes
    id: bytes | None


class Splitter:
    """Takes the pieces of a body, returns the events that they complete."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def held(self) -> int:
        """How many bytes of an event are there whose end has not come."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Event]:
        """Take a piece."""
        rest, start = self._rest + data, 0
        # A carriage return at the end may be the first half of a line's end.
        whole = len(rest) - 1 if rest.endswith(b"\r") else len(rest)
        events = []
        while (found := _END.search(rest, start, whole)) is not None:
            text = rest[start : found.end()]
            events.append(Event(text, _id(text)))
            start = found.end()
        self._rest = rest[start:]
        return events


def _id(text: bytes) -> bytes | None:
    found = _ID.findall(text)
    return found[-1] if found else None
