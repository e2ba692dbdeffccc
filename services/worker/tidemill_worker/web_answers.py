"""Whole responses on their way to gateways: sent past the streams, and kept until the gateway has them.

    response ──> (call, ANSWER) ──> gateway's subject
    settled  <── (TAKEN, calls) <── gateway, many calls in one message
             none within 3 s ──> stored in REPLIES like any other output

Storing each response would cost as much as the request did. What is sent on a subject may get lost with a
connection; so it is sent again, and at last stored. A gateway takes the same response twice and once alike.
The input's lease is given back when its response was taken, as it is when an output was stored.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from tidemill._bus.protocol import BusError
from tidemill._wire import subjects
from tidemill._wire.web import ANSWER
from tidemill_worker.node import Node
from tidemill_worker.work import Work

PATIENCE = 1.0  # seconds until a response that was not taken is sent again
TRIES = 3  # until it is stored instead
BUDGET = 32 << 20  # bytes that gateways have not taken; what is beyond is stored at once

_encode = msgspec.msgpack.Encoder().encode

Key = tuple[str, str]  # workspace, call


class _Sent:
    """A response that its gateway may not have yet."""

    __slots__ = ("again_at", "message", "store", "subject", "tries", "work")

    def __init__(self, work: Work, subject: str, message: bytes, store: Callable[[], None]) -> None:
        self.work = work
        self.subject = subject
        self.message = message
        self.store = store
        self.tries = 0
        self.again_at = 0.0


class Answers:
    """The responses of one worker. `settle` is told of work whose response was taken."""

    def __init__(self, node: Node, settle: Callable[[Work], None]) -> None:
        self._node = node
        self._settle = settle
        self._loop = asyncio.get_running_loop()
        self._sent: dict[Key, _Sent] = {}
        self._bytes = 0
        self._look_later: asyncio.TimerHandle | None = None
        node.web.on_taken = self.taken
        node.bus.on_reconnect(self._send_all_again)

    def send(self, work: Work, response: bytes, store: Callable[[], None]) -> bool:
        """Send a response; `store` stores it instead. Return False where it is to be stored at once."""
        key = work.workspace, work.chunk.call
        if key in self._sent or self._bytes + len(response) > BUDGET:
            return False
        subject = subjects.stream(work.workspace, work.chunk.gateway, down=True)
        message = _encode((work.chunk.call, (ANSWER, self._node.id, response)))
        sent = self._sent[key] = _Sent(work, subject, message, store)
        self._bytes += len(message)
        work.stores += 1
        self._publish(sent)
        if self._look_later is None:
            self._look_later = self._loop.call_later(PATIENCE, self._look)
        return True

    def taken(self, workspace: str, calls: Sequence[str]) -> None:
        """Note that a gateway has the responses to these calls."""
        for call in calls:
            if (sent := self._forget((workspace, call))) is not None:
                sent.work.stores -= 1
                self._settle(sent.work)

    def _forget(self, key: Key) -> _Sent | None:
        sent = self._sent.pop(key, None)
        if sent is not None:
            self._bytes -= len(sent.message)
        return sent

    def _publish(self, sent: _Sent) -> None:
        sent.tries += 1
        sent.again_at = self._loop.time() + PATIENCE
        with suppress(BusError):  # it is sent again when there is a connection
            self._node.bus.publish(sent.subject, sent.message)

    def _look(self) -> None:
        """Send again, or store, what was not taken in time."""
        now = self._loop.time()
        for key, sent in [item for item in self._sent.items() if item[1].again_at <= now]:
            if sent.tries < TRIES:
                self._publish(sent)
            else:
                self._forget(key)
                sent.store()
                sent.work.stores -= 1
        self._look_later = self._loop.call_later(PATIENCE / 4, self._look) if self._sent else None

    def _send_all_again(self) -> None:
        for sent in self._sent.values():
            self._publish(sent)
