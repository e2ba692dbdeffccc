"""Following a running app: what its containers print, and which of them live."""

import asyncio
import logging

from tidemill._bus.protocol import Bus, BusError, Message, Subscription
from tidemill._output import Output
from tidemill._wire import coding, subjects
from tidemill._wire.control import ContainerEvent
from tidemill._wire.messages import LogRecord

_log = logging.getLogger("tidemill")


class Watch:
    """Shows one app's output and counts its containers."""

    def __init__(self, bus: Bus, app_id: str, output: Output) -> None:
        self._bus = bus
        self._app_id = app_id
        self._output = output
        self._subscriptions: list[Subscription] = []
        self._living: set[str] = set()
        self._gone: set[str] = set()
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Listen. Logs come first, so that a container's last words are heard before its end."""
        for subject, callback in (
            (subjects.app_logs(self._app_id), self._on_logs),
            (subjects.event("container", self._app_id), self._on_event),
        ):
            self._subscriptions.append(await self._bus.subscribe(subject, callback))

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
        for subscription in self._subscriptions:
            try:
                await subscription.close()
            except BusError as error:
                _log.debug("a subscription is left behind: %s", error)

    def _on_logs(self, message: Message) -> None:
        try:
            records = coding.decode(list[LogRecord], message.data)
        except ValueError as error:
            _log.debug("output that cannot be read: %s", error)
            return
        self._output.logs(records)

    def _on_event(self, message: Message) -> None:
        try:
            event = coding.decode(ContainerEvent, message.data)
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


def _status(living: int, gone: int) -> str:
    finished = f", {gone} finished" if gone else ""
    return f"Running ({living} {'container' if living == 1 else 'containers'} active{finished})…"
