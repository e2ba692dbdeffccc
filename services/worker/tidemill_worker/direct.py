"""Outputs on their way to callers past the stream: sent, and kept until the caller has them.

    outputs ──> (…, worker, number) ──> caller's subject
    settled <── numbers <── caller, those of many messages in one
            none within 3 s ──> stored in REPLIES

Storing outputs costs the broker as much as the inputs did. What is only sent may get lost with a connection;
so it is sent again, and at last stored. A caller takes the same output twice and once alike. The input's
lease is given back when its outputs were taken, as it is when they are stored: who dies in between leaves
an input that runs again, or one that is answered.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from tidemill._bus.protocol import BusError, Message
from tidemill._wire import subjects
from tidemill_worker.node import Node
from tidemill_worker.work import Work

PATIENCE = 1.0  # seconds until what was not taken is sent again
TRIES = 3  # until it is stored instead
BUDGET = 32 << 20  # bytes that nobody has taken yet; what is beyond is stored at once

_numbers = msgspec.msgpack.Decoder(list[int]).decode


class OutputMessage(NamedTuple):
    """One message of outputs until somebody has it: its caller, or the stream of its subject."""

    work: Work
    subject: str
    data: bytes
    msg_id: str


class _Sent:
    """A message that its caller may not have yet."""

    __slots__ = ("again_at", "message", "subject", "tries")

    def __init__(self, message: OutputMessage) -> None:
        self.message = message
        self.subject = subjects.outputs(message.subject)
        self.tries = 0
        self.again_at = 0.0


class Direct:
    """The messages of one worker that are sent past the stream.

    In the end of each of them either `taken` is told that its caller has it, or `store` stores it.
    """

    def __init__(
        self, node: Node, taken: Callable[[OutputMessage], None], store: Callable[[OutputMessage], None]
    ) -> None:
        self._node = node
        self._taken = taken
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._sent: dict[int, _Sent] = {}
        self._bytes = 0
        self._hurries = False
        self._look_later: asyncio.TimerHandle | None = None

    async def listen(self) -> None:
        """Hear what callers have."""
        await self._node.bus.subscribe(subjects.taken(subjects.EVERY, self._node.id), self._on_taken)
        self._node.bus.on_reconnect(self._send_all_again)

    def send(self, number: int, message: OutputMessage) -> None:
        """Send a message whose data say this number; what is beyond the budget is stored."""
        if self._hurries or self._bytes + len(message.data) > BUDGET:
            self._store(message)
            return
        sent = self._sent[number] = _Sent(message)
        self._bytes += len(message.data)
        self._publish(sent)
        if self._look_later is None:
            self._look_later = self._loop.call_later(PATIENCE, self._look)

    def hurry(self) -> None:
        """Store what nobody has said to have, and all that is still to come: the worker ends."""
        self._hurries = True
        for number in list(self._sent):
            self._store(self._forget(number))

    def _on_taken(self, message: Message) -> None:
        try:
            numbers = _numbers(message.data)
        except msgspec.DecodeError:
            return  # it is sent again, and stored
        workspace = subjects.workspace_of_taken(message.subject)
        for number in numbers:
            sent = self._sent.get(number)
            if sent is not None and sent.message.work.workspace == workspace:
                self._taken(self._forget(number))

    def _forget(self, number: int) -> OutputMessage:
        message = self._sent.pop(number).message
        self._bytes -= len(message.data)
        return message

    def _publish(self, sent: _Sent) -> None:
        sent.tries += 1
        sent.again_at = self._loop.time() + PATIENCE
        with suppress(BusError):  # it is sent again when there is a connection
            self._node.bus.publish(sent.subject, sent.message.data)

    def _look(self) -> None:
        """Send again, or store, what was not taken in time."""
        now = self._loop.time()
        try:
            for number, sent in [item for item in self._sent.items() if item[1].again_at <= now]:
                if sent.tries < TRIES:
                    self._publish(sent)
                else:
                    self._store(self._forget(number))
        finally:  # whatever one of them meets: the others live on these looks
            self._look_later = self._loop.call_later(PATIENCE / 4, self._look) if self._sent else None

    def _send_all_again(self) -> None:
        for sent in self._sent.values():
            self._publish(sent)
