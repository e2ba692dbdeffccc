"""Watching a bucket: a consumer that pushes the latest of each key, then every change.

The consumer lives in the server's memory and may go at any time. Its messages are numbered; whenever one
is missing, a sign of life is, or the connection breaks, a new consumer tells the whole bucket again, and
only what differs from what is known is passed on.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tidemill._bus import jetstream
from tidemill._bus.framing import parse_headers, status_of
from tidemill._bus.protocol import BusError
from tidemill_common.bus import admin

if TYPE_CHECKING:
    from tidemill_common.bus.nats import NatsServiceBus

HEARTBEAT = 5.0  # seconds between signs of life
SILENCE = 12.0  # seconds without one until the consumer is given up
INACTIVE = 60.0  # seconds until the server removes a consumer whose watcher is gone
AGAIN = 0.2  # seconds between tries to make a consumer

_log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    """One message of the consumer; `more` follow that were there when it was made."""

    key: str
    value: bytes | None
    sequence: int
    more: int


async def watch(bus: "NatsServiceBus", stream: str, prefix: str) -> AsyncIterator[tuple[str, bytes | None]]:
    """Yield as `KeyValue.watch` says."""
    known: dict[str, int] = {}  # key -> the sequence of what was last told of it
    told_all = False
    while True:
        view = _View(bus, stream, prefix)
        try:
            unseen: set[str] | None = set(known)
            missing = await view.open()
            while True:
                if not missing and unseen is not None:
                    for key in unseen:
                        del known[key]
                        yield key, None
                    unseen = None
                    if not told_all:
                        told_all = True
                        yield "", None
                entry = await view.next()
                missing = missing and entry.more
                if unseen is not None:
                    unseen.discard(entry.key)
                if known.get(entry.key) == entry.sequence:
                    continue
                if entry.value is None:
                    if known.pop(entry.key, None) is not None:
                        yield entry.key, None
                else:
                    known[entry.key] = entry.sequence
                    yield entry.key, entry.value
        except _Broken as reason:
            _log.debug("watching %s begins anew: %s", stream, reason)
        except BusError as error:
            _log.debug("cannot watch %s: %s", stream, error)
            await asyncio.sleep(AGAIN)
        finally:
            view.close()


class _Broken(Exception):
    """The consumer is gone, or some of its messages are."""


class _View:
    """One consumer and what it pushed."""

    def __init__(self, bus: "NatsServiceBus", stream: str, prefix: str) -> None:
        self._bus = bus
        self._stream = stream
        self._prefix = prefix
        self._inbox = bus.new_inbox()
        self._name = ""
        self._number = 0  # of the last message, as the consumer counts them
        self._entries: deque[_Entry] = deque()  # bounded by the server's flow control
        self._flow: str = ""  # where to say that everything was taken
        self._broken: str = ""
        self._arrived = asyncio.Event()
        self._unlisten = bus.listen(self._inbox, self._take)
        self._undo = bus.on_disconnect(lambda: self._break("the connection was lost"))

    async def open(self) -> int:
        """Make the consumer; return how many entries are there to begin with."""
        subject = f"{self._prefix}>"
        verb, request = admin.watcher(
            self._stream, subject, self._inbox, heartbeat=HEARTBEAT, inactive=INACTIVE
        )
        answer = await self._bus.api(verb, request)
        self._name = answer["name"]
        return int(answer["num_pending"]) + int(answer["delivered"]["consumer_seq"])

    async def next(self) -> _Entry:
        """Return the next entry, however long that takes; `_Broken` if there will be none."""
        while not self._entries:
            if self._broken:
                raise _Broken(self._broken)
            if self._flow:
                self._say(self._flow)
                self._flow = ""
            self._arrived.clear()
            try:
                async with asyncio.timeout(SILENCE):
                    await self._arrived.wait()
            except TimeoutError:
                raise _Broken("no sign of life") from None
        return self._entries.popleft()

    def close(self) -> None:
        """Take no more."""
        self._unlisten()
        self._undo()
        if self._name:
            self._say(f"{jetstream.API}.CONSUMER.DELETE.{self._stream}.{self._name}")

    def _take(self, subject: bytes, reply: bytes, block: bytes, data: bytes) -> None:
        self._arrived.set()
        if status := status_of(block):
            self._told(status, reply, block)
            return
        # $JS.ACK.[<domain>.<hash>.]<stream>.<consumer>.<delivered>.<sequence>.<number>.<time>.<more>[...]
        fields = reply.split(b".")[6 if reply.count(b".") > 8 else 4 :]
        sequence, number, more = int(fields[1]), int(fields[2]), int(fields[4])
        if number != self._number + 1:
            self._break(f"message {self._number + 1} is missing")
            return
        self._number = number
        key = subject.decode().removeprefix(self._prefix)
        deleted = bool(block) and "KV-Operation" in parse_headers(block)
        self._entries.append(_Entry(key, None if deleted else data, sequence, more))

    def _told(self, status: int, reply: bytes, block: bytes) -> None:
        headers = parse_headers(block)
        if status != 100:
            self._break(headers.get("Description", str(status)))
        elif reply:
            self._flow = reply.decode()
        else:
            self._flow = headers.get("Nats-Consumer-Stalled", self._flow)
            if int(headers.get("Nats-Last-Consumer", self._number)) != self._number:
                self._break("messages are missing")

    def _break(self, reason: str) -> None:
        self._broken = self._broken or reason
        self._arrived.set()

    def _say(self, subject: str) -> None:
        with suppress(BusError):
            self._bus.publish(subject, b"")
