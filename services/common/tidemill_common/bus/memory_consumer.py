"""A consumer of the in-memory bus: who gets the next message, and for how long it is theirs."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidemill._bus.protocol import Stored
from tidemill_common.bus.clock import Alarm, Clock
from tidemill_common.bus.protocol import ConsumerSpec, ConsumerState, Delivery

if TYPE_CHECKING:
    from tidemill_common.bus.memory_stream import MemoryStream


class MemoryDelivery:
    """See `Delivery`."""

    def __init__(self, consumer: "MemoryConsumer", message: Stored, ack_subject: str, *, count: int) -> None:
        self._consumer = consumer
        self._message = message
        self.subject = message.subject
        self.data = message.data
        self.ack_subject = ack_subject
        self.pending = consumer.state().pending
        self.redelivered = count > 1

    @property
    def time(self) -> float:
        """See `Delivery.time`."""
        return self._message.time

    @property
    def headers(self) -> Mapping[str, str]:
        """See `Delivery.headers`."""
        return self._message.headers

    def ack(self) -> "asyncio.Future[None]":
        """See `Delivery.ack`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumer.ack(self._message.sequence)
        done.set_result(None)
        return done

    def nak(self, delay: float = 0.0) -> None:
        """See `Delivery.nak`."""
        self._consumer.nak(self._message.sequence, delay)

    def renew(self) -> None:
        """See `Delivery.renew`."""
        self._consumer.renew(self._message.sequence)


class MemoryPuller:
    """See `Puller`."""

    def __init__(
        self,
        find: Callable[[], "MemoryConsumer"],
        on_delivery: Callable[[Delivery], None],
        on_unwanted: Callable[[Delivery], None],
    ) -> None:
        self._find = find
        self._on_delivery = on_delivery
        self._on_unwanted = on_unwanted
        self.wanted = 0
        self.first = 0
        self.turn = 0  # who waits longest comes first
        self.closed = False

    def want(self, slots: int, first: int | None = None) -> None:
        """See `Puller.want`."""
        if not self.closed:
            self.wanted = slots
            self.first = slots if first is None else first
            self._find().wait(self)

    async def close(self) -> None:
        """See `Puller.close`."""
        self.closed = True
        self.wanted = 0

    def take(self, delivery: MemoryDelivery) -> None:
        """Hand a delivery over, or back when it is no longer wanted."""
        if self.closed:
            self._on_unwanted(delivery)
        else:
            self._on_delivery(delivery)


@dataclass(slots=True)
class _Lease:
    """A message that somebody has."""

    alarm: Alarm


class MemoryConsumer:
    """A durable consumer: leases with `ack_wait`, first delivered to who waits longest."""

    def __init__(self, spec: ConsumerSpec, clock: Clock, stream: "MemoryStream") -> None:
        self.filter = spec.filter
        self._spec = spec
        self._clock = clock
        self._stream = stream
        self._ready: dict[int, None] = {}  # sequences nobody has, in the order of delivery
        self._leases: dict[int, _Lease] = {}
        self._counts: dict[int, int] = {}  # deliveries so far, of what is not acknowledged
        self._pullers: set[MemoryPuller] = set()
        self._turns = 0
        self._delivered = 0
        self._scheduled = False

    def state(self) -> ConsumerState:
        """Return how much work there is."""
        again = sum(1 for sequence in self._ready if sequence in self._counts)
        return ConsumerState(
            pending=len(self._ready) - again,
            ack_pending=len(self._leases) + again,
            waiting=sum((one.first > 0) + (one.wanted > max(0, one.first)) for one in self._pullers),
            delivered=self._delivered,
        )

    def add(self, message: Stored) -> None:
        """Take note of a new message that the filter lets through."""
        self._ready[message.sequence] = None
        self._deliver_soon()

    def forget(self, sequence: int) -> None:
        """Take note that a message is gone."""
        self._ready.pop(sequence, None)
        self._counts.pop(sequence, None)
        if (lease := self._leases.pop(sequence, None)) is not None:
            lease.alarm.cancel()

    def wait(self, puller: MemoryPuller) -> None:
        """Let somebody wait for messages."""
        self._turns += 1
        puller.turn = self._turns
        self._pullers.add(puller)
        self._deliver_soon()

    def ack(self, sequence: int) -> None:
        """Finish a message, whoever has it by now."""
        if self._stream.spec.retention == "workqueue":
            self._stream.remove(sequence)
        self.forget(sequence)
        self._deliver_soon()

    def nak(self, sequence: int, delay: float = 0.0) -> None:
        """Take a message back, to be delivered again after some seconds."""
        if (lease := self._leases.get(sequence)) is None:
            return
        lease.alarm.cancel()
        if delay:
            lease.alarm = self._clock.call_at(self._clock.time() + delay, lambda: self._expire(sequence))
        else:
            self._expire(sequence)

    def renew(self, sequence: int) -> None:
        """Let a lease begin anew."""
        if (lease := self._leases.get(sequence)) is not None:
            lease.alarm.cancel()
            lease.alarm = self._alarm(sequence)

    def _alarm(self, sequence: int) -> Alarm:
        return self._clock.call_at(self._clock.time() + self._spec.ack_wait, lambda: self._expire(sequence))

    def _expire(self, sequence: int) -> None:
        """Make a message available again, before what was never delivered."""
        if self._leases.pop(sequence, None) is not None:
            self._ready = {sequence: None, **self._ready}
            self._deliver_soon()

    def _deliver_soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        """Give what is ready to who waits."""
        self._scheduled = False
        while self._ready and len(self._leases) < self._spec.max_ack_pending:
            self._pullers = {puller for puller in self._pullers if puller.wanted > 0}
            if not self._pullers:
                return
            puller = min(self._pullers, key=lambda puller: (puller.first <= 0, puller.turn))
            sequence = next(iter(self._ready))
            del self._ready[sequence]
            if (message := self._stream.get(sequence)) is not None:
                puller.wanted -= 1
                puller.first -= 1
                self._turns += 1
                puller.turn = self._turns
                self._lease(puller, message)

    def _lease(self, puller: MemoryPuller, message: Stored) -> None:
        sequence = message.sequence
        self._delivered += 1
        count = self._counts[sequence] = self._counts.get(sequence, 0) + 1
        self._leases[sequence] = _Lease(self._alarm(sequence))
        name = f"{self._stream.spec.name}.{self._spec.name}"
        time = int(message.time * 1e9)
        ack_subject = f"$JS.ACK.{name}.{count}.{sequence}.{self._delivered}.{time}.{self.state().pending}"
        puller.take(MemoryDelivery(self, message, ack_subject, count=count))
