"""Following a running app: what its containers print, and which of them live.

What is heard live is shown at once. What may have been missed while the connection was away is read again
from the streams, and what then comes twice is shown once.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from tidemill._bus.protocol import Bus, BusError, Message, Subscription
from tidemill._output import Output
from tidemill._wire import coding, subjects
from tidemill._wire.messages import LogRecord
from tidemill._wire.scheduling import ContainerEvent

REMEMBERED = 50_000  # messages of output, to know a repeat
TOLERANCE = 60.0  # seconds that clocks may differ, and that a message may have been under way

_log = logging.getLogger("tidemill")


class Watch:
    """Shows one app's output and counts its containers."""

    def __init__(self, bus: Bus, workspace: str, app_id: str, output: Output) -> None:
        self._bus = bus
        self._logs = (subjects.logs_stream(workspace), subjects.app_logs(workspace, app_id))
        self._events = (subjects.events_stream(workspace), subjects.event(workspace, "container", app_id))
        self._output = output
        self._subscriptions: list[Subscription] = []
        self._living: set[str] = set()
        self._gone: set[str] = set()
        self._changed = asyncio.Event()
        self._heard = time.time()
        self._seen: set[str] = set()
        self._order: deque[str] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._away = False
        self._held: deque[Message] = deque(maxlen=REMEMBERED)  # while what was missed is read
        self._undo: list[Callable[[], None]] = []

    async def open(self, *, after: int | None = None) -> None:
        """Listen. Logs come first, so that a container's last words are heard before its end.

        What was printed behind the message with the sequence `after` is shown before what is heard.
        """
        self._away = after is not None
        for (_, subject), callback in (
            (self._logs, self._on_logs),
            (self._events, self._on_event),
        ):
            self._subscriptions.append(await self._bus.subscribe(subject, callback))
        self._undo = [
            self._bus.on_disconnect(self._on_disconnect),
            self._bus.on_reconnect(self._on_reconnect),
        ]
        if after is not None:
            self._away = False
            self._show_first(self._show_behind(after))

    async def until_quiet(self, timeout: float) -> bool:
        """Wait until every container that started has ended; return whether they have."""
        try:
            async with asyncio.timeout(timeout):
                while self._living:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Listen no more."""
        for undo in self._undo:
            undo()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for subscription in self._subscriptions:
            try:
                await subscription.close()
            except BusError as error:
                _log.debug("a subscription is left behind: %s", error)

    def _on_logs(self, message: Message) -> None:
        if self._away or self._tasks:
            self._held.append(message)
        else:
            self._heard = time.time()
            self._take_logs(message.data, message.headers)

    def _take_logs(self, data: bytes, headers: Mapping[str, str]) -> None:
        if self._is_repeat(headers.get("Nats-Msg-Id", "")):
            return
        try:
            records = coding.decode(list[LogRecord], data)
        except ValueError as error:
            _log.debug("output that cannot be read: %s", error)
            return
        self._output.logs(records)

    def _is_repeat(self, key: str) -> bool:
        if not key:
            return False
        if key in self._seen:
            return True
        self._seen.add(key)
        self._order.append(key)
        if len(self._order) > REMEMBERED:
            self._seen.discard(self._order.popleft())
        return False

    def _on_event(self, message: Message) -> None:
        self._take_event(message.data, message.headers)

    def _take_event(self, data: bytes, _headers: Mapping[str, str]) -> None:
        try:
            event = coding.decode(ContainerEvent, data)
        except ValueError as error:
            _log.debug("an event that cannot be read: %s", error)
            return
        if event.state == "started":
            if event.container not in self._gone:
                self._living.add(event.container)
        else:
            self._gone.add(event.container)
            self._living.discard(event.container)
        self._changed.set()
        self._output.status(_status(len(self._living), len(self._gone)))

    # --- after the connection was away

    def _on_disconnect(self) -> None:
        self._away = True

    def _on_reconnect(self) -> None:
        self._away = False
        self._show_first(self._catch_up())

    def _show_first(self, reading: Coroutine[Any, Any, None]) -> None:
        """Read what stands in the stream; what is heard meanwhile is held."""
        task = asyncio.get_running_loop().create_task(reading, name="read output again")
        self._tasks.add(task)
        task.add_done_callback(self._caught_up)

    def _caught_up(self, task: "asyncio.Task[None]") -> None:
        """Show what came meanwhile: it stands behind what was missed."""
        self._tasks.discard(task)
        while self._held and not self._tasks:
            self._on_logs(self._held.popleft())

    async def _catch_up(self) -> None:
        since = self._heard - TOLERANCE
        try:
            async for stored in self._bus.read(*self._logs, since=since):
                self._take_logs(stored.data, stored.headers)
            async for stored in self._bus.read(*self._events, since=since):
                self._take_event(stored.data, stored.headers)
        except BusError as error:
            _log.debug("output cannot be read again: %s", error)

    async def _show_behind(self, sequence: int) -> None:
        try:
            async for stored in self._bus.read(*self._logs, sequence=sequence + 1):
                self._take_logs(stored.data, stored.headers)
        except BusError as error:
            _log.debug("output cannot be read: %s", error)


def _status(living: int, gone: int) -> str:
    finished = f", {gone} finished" if gone else ""
    return f"Running ({living} {'container' if living == 1 else 'containers'} active{finished})…"
