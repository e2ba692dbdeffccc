"""A stream of the in-memory bus: the same rules, refusals and texts as JetStream's."""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from tidemill._bus.jetstream import HELD_TEXT
from tidemill._bus.protocol import AlreadyHeld, PubAck, Stored, StreamFull, WrongSequence
from tidemill_common.bus.clock import Clock
from tidemill_common.bus.memory_consumer import MemoryConsumer
from tidemill_common.bus.protocol import ConsumerSpec, StreamSpec

_SCHEDULE = "Nats-Schedule"
_TARGET = "Nats-Schedule-Target"
_EARLIEST_FIRING = 0.25  # seconds; the server looks at its schedules that often


def matches(pattern: str, subject: str) -> bool:
    """Say whether a subject falls under a pattern with `*` and `>`."""
    if pattern == subject:
        return True
    wanted, given = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(given) > position
        if position >= len(given) or part not in ("*", given[position]):
            return False
    return len(wanted) == len(given)


class MemoryStream:
    """Messages in order, the ids of recent ones, and the consumers that work on them.

    `changed` is told every message that is stored.
    """

    def __init__(self, spec: StreamSpec, clock: Clock, changed: Callable[[Stored], None]) -> None:
        self.spec = spec
        self.consumers: dict[str, MemoryConsumer] = {}
        self._clock = clock
        self._changed = changed
        self._messages: dict[int, Stored] = {}  # by sequence, ascending
        self._subjects: dict[str, deque[int]] = {}
        self._ids: dict[str, tuple[int, float]] = {}  # message id -> sequence, time
        self._last = 0
        self._bytes = 0

    def takes(self, subject: str) -> bool:
        """Say whether messages on a subject belong here."""
        return any(matches(pattern, subject) for pattern in self.spec.subjects)

    def store(self, subject: str, data: bytes, headers: Mapping[str, str]) -> PubAck:
        """Take a message, or refuse it as JetStream would."""
        now = self._clock.time()
        msg_id = headers.get("Nats-Msg-Id")
        if msg_id and (known := self._known(msg_id, now)):
            return PubAck(self.spec.name, known, duplicate=True)
        self._check_expected(subject, headers)
        if headers.get("Nats-Rollup") == "sub":
            self.purge(subject)
        size = len(subject) + len(data)
        self._make_room(subject, size)
        self._last += 1
        message = Stored(subject, data, self._last, now, dict(headers))
        self._messages[self._last] = message
        self._subjects.setdefault(subject, deque()).append(self._last)
        self._bytes += size
        if msg_id:
            self._ids[msg_id] = (self._last, now)
        self._set_alarms(message)
        for consumer in self.consumers.values():
            if matches(consumer.filter, subject):
                consumer.add(message)
        self._changed(message)
        return PubAck(self.spec.name, message.sequence, duplicate=False)

    def consumer(self, spec: ConsumerSpec) -> MemoryConsumer:
        """Return a consumer, made if it is not there."""
        if spec.name not in self.consumers:
            made = MemoryConsumer(spec, self._clock, self)
            self.consumers[spec.name] = made
            for message in self.read(spec.filter):
                made.add(message)
        return self.consumers[spec.name]

    def get(self, sequence: int) -> Stored | None:
        """Return a message that is still there."""
        return self._messages.get(sequence)

    def last(self, pattern: str) -> Stored | None:
        """Return the last message on a subject."""
        if pattern in self._subjects:
            return self._messages[self._subjects[pattern][-1]]
        found = [message for message in self._messages.values() if matches(pattern, message.subject)]
        return found[-1] if found else None

    def read(self, pattern: str) -> Iterator[Stored]:
        """Yield what is there on a subject, oldest first."""
        for message in list(self._messages.values()):
            if matches(pattern, message.subject):
                yield message

    def purge(self, pattern: str, below: int = 0) -> int:
        """Remove what is there on a subject, or the part of it below a sequence."""
        gone = [message.sequence for message in self.read(pattern)]
        gone = [sequence for sequence in gone if not below or sequence < below]
        for sequence in gone:
            self.remove(sequence)
        return len(gone)

    def remove(self, sequence: int) -> None:
        """Remove a message; nothing happens if it is gone."""
        message = self._messages.pop(sequence, None)
        if message is None:
            return
        self._bytes -= len(message.subject) + len(message.data)
        held = self._subjects[message.subject]
        held.remove(sequence)
        if not held:
            del self._subjects[message.subject]
        for consumer in self.consumers.values():
            consumer.forget(sequence)

    def _known(self, msg_id: str, now: float) -> int | None:
        """Return the sequence of a message that came before, if that was not too long ago."""
        sequence, time = self._ids.get(msg_id, (0, 0.0))
        if sequence and now - time <= self.spec.duplicate_window:
            return sequence
        self._ids.pop(msg_id, None)
        return None

    def _check_expected(self, subject: str, headers: Mapping[str, str]) -> None:
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        if expected is None:
            return
        held = self._subjects.get(subject)
        found = held[-1] if held else 0
        if found != int(expected):
            raise WrongSequence(f"wrong last sequence: {found}")

    def _make_room(self, subject: str, size: int) -> None:
        spec = self.spec
        held = self._subjects.get(subject, deque())
        crowded = 0 <= spec.max_msgs_per_subject <= len(held)
        if crowded and spec.discard_new_per_subject:
            raise AlreadyHeld(HELD_TEXT)
        if 0 <= spec.max_bytes < self._bytes + size and spec.discard == "new" and not crowded:
            raise StreamFull("maximum bytes exceeded")
        if held and crowded:
            self.remove(held[0])
        while self._messages and 0 <= spec.max_bytes < self._bytes + size:
            self.remove(next(iter(self._messages)))

    def _set_alarms(self, message: Stored) -> None:
        """Arrange that a message goes, or is published, when its time has come."""
        ages = [self.spec.max_age] if self.spec.max_age else []
        if self.spec.allow_msg_ttl and (ttl := re.fullmatch(r"(\d+)s?", message.headers.get("Nats-TTL", ""))):
            ages.append(float(ttl[1]))
        if ages:
            self._clock.call_at(message.time + min(ages), lambda: self.remove(message.sequence))
        schedule = message.headers.get(_SCHEDULE, "")
        if self.spec.allow_msg_schedules and schedule.startswith("@at "):
            due = datetime.fromisoformat(schedule.removeprefix("@at ")).timestamp()
            when = max(due, message.time + _EARLIEST_FIRING)
            self._clock.call_at(when, lambda: self._fire(message))

    def _fire(self, schedule: Stored) -> None:
        """Publish what a schedule holds onto its target, and forget the schedule."""
        if schedule.sequence not in self._messages:
            return
        self.remove(schedule.sequence)
        kept = {name: value for name, value in schedule.headers.items() if not name.startswith("Nats-")}
        kept |= {"Nats-Scheduler": schedule.subject, "Nats-Schedule-Next": "purge"}
        self.store(schedule.headers[_TARGET], schedule.data, kept)
