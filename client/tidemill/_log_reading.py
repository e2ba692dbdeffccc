"""Reading output from its stream: a range, the end of it, or on and on.

The stream is read by batched direct gets. The end is looked for backwards, in windows that grow, so that
a hundred lines cost what a hundred lines take; following reads on from where it was, and what is heard
live is only a bell, so that nothing is missed when the connection was away.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress

from tidemill import exception
from tidemill._bus.protocol import Bus, BusError, Message, Stored
from tidemill._caller import explain
from tidemill._log_entries import Lines, LogEntry, Selection
from tidemill._wire import coding, subjects
from tidemill._wire.messages import LogRecord

LATE = 30.0  # seconds that output may have been under way, or a worker's clock be wrong
FIRST_WINDOW, GROWTH = 8, 4  # messages looked at first, counted backwards, and how that grows
MAX_READ = 64 << 20  # bytes read in search of the last lines
LOOK = 2.0  # seconds between looks for more, for want of a bell
RETRY = 0.5  # seconds until the stream is read again after the connection was away

_log = logging.getLogger("tidemill")


class LogReader:
    """Reads what a selection asks for."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        selection: Selection,
        functions: dict[str, str],
        *,
        max_read: int = MAX_READ,
    ) -> None:
        self._max_read = max_read
        # Of what was followed: up to this sequence every line was given whole; None before anything is.
        self.position: int | None = None
        self.gave_up = False  # whether there may be more of the last lines than were found
        self._bus = bus
        self._stream = stream
        self._selection = selection
        self._functions = functions

    async def fetch(self, limit: int) -> AsyncGenerator[LogEntry, None]:
        """Yield the first lines of the selection."""
        selection, lines, left = self._selection, self._lines(), limit
        since = selection.since - LATE if selection.since else None
        async with aclosing(self._read(since=since)) as messages:
            async for stored in messages:
                if stored.time > selection.until + LATE:
                    break
                for entry in self._entries(lines, stored):
                    yield entry
                    left -= 1
                    if not left:
                        return
        for entry in lines.rest():
            yield entry
            left -= 1
            if not left:
                return

    async def last(self) -> int:
        """Return the sequence of the last message there is, 0 if there is none."""
        try:
            stored = await self._bus.last(self._stream, self._selection.subject)
        except BusError as error:
            raise explain(error) from error
        return stored.sequence if stored else 0

    async def tail(self, count: int, high: int) -> list[LogEntry]:
        """Return the last lines of the selection up to the message with the sequence `high`."""
        pieces: deque[list[Stored]] = deque()
        found: list[LogEntry] = []
        read, width = 0, FIRST_WINDOW
        while high > 0 and len(found) < count:
            low = max(1, high - width + 1)
            window = await self._window(low, high)
            read += sum(len(stored.data) for stored in window)
            pieces.appendleft([stored for stored in window if stored.time <= self._selection.until + LATE])
            found = self._assemble(pieces)
            if window and window[0].time < self._selection.since - LATE:
                break
            if read > self._max_read:
                self.gave_up = True
                _log.warning("only the last %d MiB of output were looked through", read >> 20)
                break
            high, width = low - 1, width * GROWTH
        return found[-count:]

    async def follow(self, after: int, is_over: Callable[[], bool]) -> AsyncGenerator[LogEntry, None]:
        """Yield lines as they come behind the message with the sequence `after`, until all is over."""
        bell = asyncio.Event()
        bell.set()
        lines, sequence = self._lines(), after + 1
        async with aclosing(_ringing(self._bus, self._selection.subject, bell)) as rings:
            async for _ in rings:
                over = is_over()
                heard = False
                try:
                    async with aclosing(self._read(sequence=sequence)) as messages:
                        async for stored in messages:
                            heard, sequence = True, stored.sequence + 1
                            for entry in self._entries(lines, stored):
                                yield entry
                            if lines.are_whole:
                                self.position = stored.sequence
                except (exception.ConnectionError, exception.ServiceError) as error:  # it is away
                    _log.debug("output cannot be read now: %s", error)
                    await asyncio.sleep(RETRY)
                    bell.set()
                    continue
                for entry in lines.rest():
                    yield entry
                self.position = sequence - 1
                if over and not heard:
                    return

    # --- messages

    def _lines(self) -> Lines:
        return Lines(self._selection, self._functions)

    def _assemble(self, pieces: "deque[list[Stored]]") -> list[LogEntry]:
        lines = self._lines()
        found = [entry for window in pieces for stored in window for entry in self._entries(lines, stored)]
        return sorted([*found, *lines.rest()], key=lambda entry: entry.timestamp)

    def _entries(self, lines: Lines, stored: Stored) -> Iterator[LogEntry]:
        try:
            records = coding.decode(list[LogRecord], stored.data)
        except ValueError as error:
            _log.debug("output that cannot be read: %s", error)
            return
        app = subjects.app_of_logs(stored.subject)
        for record in records:
            yield from lines.add(record, app)

    async def _window(self, low: int, high: int) -> list[Stored]:
        window: list[Stored] = []
        async with aclosing(self._read(sequence=low)) as messages:
            async for stored in messages:
                if stored.sequence > high:
                    break
                window.append(stored)
        return window

    async def _read(self, *, since: float | None = None, sequence: int = 1) -> AsyncGenerator[Stored, None]:
        subject = self._selection.subject
        try:
            async for stored in self._bus.read(self._stream, subject, since=since, sequence=sequence):
                yield stored
        except BusError as error:
            raise explain(error) from error


async def _ringing(bus: Bus, subject: str, bell: asyncio.Event) -> AsyncGenerator[None, None]:
    """Yield whenever there may be more: something was heard, the connection is back, time has passed."""

    def ring(_: Message) -> None:
        bell.set()

    undo = bus.on_reconnect(bell.set)
    subscription = None
    try:
        with suppress(BusError):  # not connected for the moment: the looks go on
            subscription = await bus.subscribe(subject, ring)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await bell.wait()
            bell.clear()
            yield
    finally:
        undo()
        if subscription is not None:
            with suppress(BusError):
                await subscription.close()
