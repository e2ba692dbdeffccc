"""A standing pull from one consumer.

A pull asks for a number of messages and may be followed by others before it is satisfied:

    want(n) ──> credit < n ──> pull(n - credit) ──> messages ... ──> credit used up, or
                    ^                                                 expired (408), refused (409),
                    └──────────── credit given back <──────────────── no consumer (503), silent, reconnect

What can run at once is pulled for with the first priority, what would only be at hand with a later one, so
that no input waits behind another one while a container idles elsewhere.

A message does not say which pull it satisfies, so each pull that is under way has a subscription of its
own, a *lane*; lanes are used again. Pulls are never ended by unsubscribing, which could lose a message on
its way for a whole lease: what arrives for nobody is handed back.
"""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from tidemill._bus import jetstream
from tidemill._bus.framing import parse_headers, status_of
from tidemill._bus.protocol import BusError
from tidemill_common.bus.admin import PRIORITY_GROUP, nanoseconds
from tidemill_common.bus.protocol import ConsumerSpec, Delivery

if TYPE_CHECKING:
    from tidemill_common.bus.nats import NatsServiceBus

EXPIRES = 30.0  # seconds that a pull waits at the server
HEARTBEAT = 5.0  # seconds between the signs of life of an idle one
LOOK = 6.0  # seconds between looks: a pull without any sign in two of them is void
MAKE_DELAY, MAX_MAKE_DELAY = 0.05, 2.0  # seconds between tries to make a missing consumer
MANY = 16  # messages wanted at once from which on a pull is worth it only for a quarter of them
MAX_LANES = 256  # pulls under way at the same time
BACK_OFF = (0.1, 0.5)  # seconds, jittered, when the server takes no more pulls

_EXPIRES, _HEARTBEAT = nanoseconds(EXPIRES), nanoseconds(HEARTBEAT)
_FIRST, _LATER = 0, 5  # priorities of pulls: the server goes from 0 to 9
_ACK_SUBJECT = b"$JS.ACK."
_IDLE, _NO_CONSUMER, _CONFLICT, _EXPIRED = 100, 503, 409, (404, 408)

_log = logging.getLogger(__name__)


def hand_back(delivery: Delivery) -> None:
    """Let whoever asks next have a message that is not wanted here any more."""
    delivery.nak()


class NatsDelivery:
    """One message taken from a work queue."""

    __slots__ = ("_block", "_bus", "ack_subject", "consumer", "data", "pending", "redelivered", "subject")

    def __init__(
        self, bus: "NatsServiceBus", subject: bytes, reply: bytes, block: bytes, data: bytes
    ) -> None:
        self._bus = bus
        self._block = block
        self.subject = subject.decode()
        self.ack_subject = reply.decode()
        self.data = data
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<sequences>.<time>.<pending>[.<random>]
        fields = self.ack_subject.split(".")
        long = len(fields) > 9
        self.consumer = (fields[4], fields[5]) if long else (fields[2], fields[3])
        self.pending = int(fields[10 if long else 8])
        self.redelivered = fields[6 if long else 4] != "1"
        bus.hold(self)

    @property
    def time(self) -> float:
        """See `Delivery.time`."""
        fields = self.ack_subject.split(".")
        return int(fields[9 if len(fields) > 9 else 7]) / 1e9

    @property
    def headers(self) -> Mapping[str, str]:
        """See `Delivery.headers`."""
        return parse_headers(self._block)

    def ack(self) -> "asyncio.Future[None]":
        """See `Delivery.ack`."""
        return self._bus.acknowledge(self)

    def nak(self, delay: float = 0.0) -> None:
        """See `Delivery.nak`."""
        order = b'-NAK {"delay": %d}' % nanoseconds(delay) if delay else b"-NAK"
        self._bus.release(self)
        self._say(order)

    def renew(self) -> None:
        """See `Delivery.renew`."""
        self._say(b"+WPI")

    def _say(self, order: bytes) -> None:
        with suppress(BusError):  # after an outage the lease has run out, or is renewed first of all
            self._bus.publish(self.ack_subject, order)


class _Lane:
    """A subscription for one pull at a time: how much of it is still to come, and its signs of life."""

    __slots__ = ("deadline", "inbox", "is_first", "left", "looks", "number", "unlisten")

    def __init__(
        self, bus: "NatsServiceBus", arrived: Callable[["_Lane", bytes, bytes, bytes, bytes], None]
    ) -> None:
        self.inbox = bus.new_inbox()
        self.unlisten = bus.listen(f"{self.inbox}.*", partial(arrived, self))
        self.number = b""  # of its pull, the last token of its inbox subject
        self.left = 0
        self.is_first = True
        self.deadline = 0.0
        self.looks = 0  # since the last sign of life


class NatsPuller:
    """See `Puller`."""

    def __init__(
        self,
        bus: "NatsServiceBus",
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_unwanted: Callable[[Delivery], None] | None = None,
    ) -> None:
        self._bus = bus
        self._spec = spec
        self._on_delivery = on_delivery
        self._on_unwanted: Callable[[Delivery], None] = on_unwanted or hand_back
        self._busy: set[_Lane] = set()
        self._idle: list[_Lane] = []
        self._numbers = itertools.count()
        self._wanted, self._first = 0, 0
        self._credit, self._first_credit = 0, 0  # of the wanted ones, and of the first among them
        self._asking = False  # a pull is about to be sent
        self._blocked = False  # the consumer is being made, or the server wants a pause
        self._closed = False
        self._look: asyncio.TimerHandle | None = None
        self._subject = f"{jetstream.API}.CONSUMER.MSG.NEXT.{spec.stream}.{spec.name}"
        self._undo = (bus.on_disconnect(self._void), bus.on_reconnect(self._ask_soon))

    def want(self, slots: int, first: int | None = None) -> None:
        """See `Puller.want`."""
        self._wanted = 0 if self._closed else slots
        self._first = self._wanted if first is None else min(first, self._wanted)
        if self._credit < self._wanted or self._first_credit < self._first:
            self._ask_soon()

    async def close(self) -> None:
        """See `Puller.close`. What is still asked for is waited for behind the scenes."""
        if not self._closed:
            self._closed = True
            self._wanted = self._first = 0
            self._end_if_done()

    def _end_if_done(self) -> None:
        if not self._closed or self._busy:
            return
        for lane in self._idle:
            lane.unlisten()
        self._idle.clear()
        for undo in self._undo:
            undo()
        if self._look is not None:
            self._look.cancel()

    # --- asking

    def _ask_soon(self) -> None:
        if not self._asking:
            self._asking = True
            self._bus.soon(self._ask)

    def _ask(self) -> None:
        """Pull for what is wanted and not asked for yet."""
        self._asking = False
        self._pull(self._first - self._first_credit, is_first=True)
        missing = self._wanted - self._credit
        lasts = self._wanted >= MANY and self._credit and missing * 4 < self._wanted
        if not lasts:  # one pull for each message would double their cost
            self._pull(missing, is_first=False)

    def _pull(self, missing: int, *, is_first: bool) -> None:
        if missing <= 0 or self._blocked or not self._bus.connected or len(self._busy) == MAX_LANES:
            return
        lane = self._idle.pop() if self._idle else _Lane(self._bus, self._arrived)
        number = str(next(self._numbers))
        try:
            self._bus.publish(
                self._subject,
                self._request(missing, _FIRST if is_first else _LATER),
                reply=f"{lane.inbox}.{number}",
            )
        except BusError as error:
            self._idle.append(lane)
            self._pause(0, str(error))
            return
        lane.number, lane.left, lane.looks, lane.is_first = number.encode(), missing, 0, is_first
        lane.deadline = self._bus.time() + EXPIRES + 2.0
        self._busy.add(lane)
        self._add_credit(lane, missing)
        if self._look is None:
            self._look = self._bus.later(LOOK, self._look_after)

    def _add_credit(self, lane: _Lane, count: int) -> None:
        self._credit += count
        if lane.is_first:
            self._first_credit += count

    def _request(self, batch: int, priority: int) -> bytes:
        group = ""
        if self._spec.prioritized:
            group = f',"group":"{PRIORITY_GROUP}","priority":{priority}'
        return f'{{"batch":{batch},"expires":{_EXPIRES},"idle_heartbeat":{_HEARTBEAT}{group}}}'.encode()

    # --- what comes

    def _arrived(self, lane: _Lane, subject: bytes, reply: bytes, block: bytes, data: bytes) -> None:
        if not reply.startswith(_ACK_SUBJECT):
            if subject[len(lane.inbox) + 1 :] == lane.number:
                self._told(lane, status_of(block), block)
            return
        lane.looks = 0
        if lane.left:
            lane.left -= 1
            self._add_credit(lane, -1)
            if not lane.left:
                self._free(lane)
        delivery = NatsDelivery(self._bus, subject, reply, block, data)
        if self._wanted > 0:
            self._wanted -= 1
            self._first = max(0, self._first - 1)
            self._on_delivery(delivery)
        else:
            self._on_unwanted(delivery)

    def _told(self, lane: _Lane, status: int, block: bytes) -> None:
        """Take a status: all but the idle heartbeat end the pull and give its credit back."""
        lane.looks = 0
        if status == _IDLE or lane not in self._busy:
            return
        description = parse_headers(block).get("Description", "")
        self._free(lane)
        if status == _NO_CONSUMER or (status == _CONFLICT and "Consumer Deleted" in description):
            self._make()
        elif status not in _EXPIRED and "Shutdown" not in description and "Leadership" not in description:
            self._pause(status, description)
        self._ask_soon()

    def _free(self, lane: _Lane) -> None:
        """Give back what is left of a lane's pull."""
        self._add_credit(lane, -lane.left)
        lane.left = 0
        self._busy.discard(lane)
        self._idle.append(lane)
        if self._wanted > self._credit or self._first > self._first_credit:
            self._ask_soon()
        self._end_if_done()

    def _void(self) -> None:
        """Forget all pulls: the server does, when the connection goes."""
        for lane in list(self._busy):
            self._free(lane)

    def _look_after(self) -> None:
        """Give up pulls that are past their time or have gone silent."""
        self._look = None
        now = self._bus.time()
        for lane in list(self._busy):
            lane.looks += 1
            if lane.looks > 2 or now > lane.deadline:
                self._free(lane)
        if self._busy:
            self._look = self._bus.later(LOOK, self._look_after)

    # --- what stands in the way

    def _make(self) -> None:
        if not self._blocked and not self._closed:
            self._blocked = True
            self._bus.start(self._make_consumer())

    async def _make_consumer(self) -> None:
        """Make the consumer, however long that takes."""
        delay = MAKE_DELAY
        try:
            while not self._closed:
                try:
                    await self._bus.ensure_consumer(self._spec)
                    return
                except BusError as error:
                    _log.warning("cannot make the consumer %s: %s", self._spec.name, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, MAX_MAKE_DELAY)
        finally:
            self._blocked = False
            self._ask_soon()

    def _pause(self, status: int, description: str) -> None:
        if not self._blocked:
            _log.warning("a pull from %s was refused: %s (%d)", self._spec.name, description, status)
            self._blocked = True
            self._bus.later(random.uniform(*BACK_OFF), self._go_on)  # noqa: S311

    def _go_on(self) -> None:
        self._blocked = False
        self._ask_soon()
