"""What the worker tells of its inputs: that they run, were tried in vain, have finished, call others.

Inputs that finish together cost one record. That an input runs is told only when it has done so for a
while: most have finished before.

A web request that succeeds is only counted, unless somebody may know of it: it ran for long enough to be
seen, has written output, called a function, asked for its own id, answered with an error, or its response
is kept. Then it is *noted*, and has a record like any other input.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from tidemill._wire import ids, subjects
from tidemill._wire.calls import DETAILED, InputRecord, State, runs_of
from tidemill._wire.messages import Blob, Format, Status, Try
from tidemill._wire.specs import Pool
from tidemill_common.records import Recorder, reason_of

if TYPE_CHECKING:
    from tidemill_worker.container import Container
    from tidemill_worker.outputs import Item
    from tidemill_worker.work import Work

LOOK_EVERY = 0.25  # seconds between looks at what runs
STARTS = 1_000  # containers, the last ones, of whose start the moments are known
COUNTED = 1_000  # requests that were only counted, in which output or calls may still turn up
RUNS_LONG = 0.1  # seconds after which it is told that an input runs

_STATES = {
    Status.SUCCESS: State.SUCCESS,
    Status.DONE: State.SUCCESS,
    Status.FAILURE: State.FAILURE,
    Status.TIMEOUT: State.TIMEOUT,
    Status.CANCELLED: State.CANCELLED,
}
_GOOD = frozenset({Status.SUCCESS, Status.DONE})


class _Head(msgspec.Struct, array_like=True):
    """A chunk that a container submits, without a look at its payloads."""

    call: str
    indices: list[int]
    attempt: int
    reply: str
    inputs: msgspec.Raw
    sent: float
    failures: int = 0
    losses: int = 0
    parent: str = ""
    root: str = ""
    tries: msgspec.Raw = msgspec.Raw()
    collect: bool = False
    gateway: str = ""
    method: str = ""


_read_head = msgspec.msgpack.Decoder(_Head).decode


class Records:
    """The records of one worker."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._starts: dict[str, tuple[float, ...]] = {}
        self._counted: dict[str, InputRecord] = {}  # by call, the oldest first

    def ready(self, container: str, moments: tuple[float, ...]) -> None:
        """Note the moments of a container's start, for the inputs that waited for it."""
        while len(self._starts) >= STARTS:
            del self._starts[next(iter(self._starts))]
        self._starts[container] = moments

    def finished(self, work: "Work", items: "list[Item]", seconds: float, container: str) -> None:
        """Tell that inputs have ended for good; they were executed for so many seconds in all."""
        now = time.time()
        span = (now - seconds if container else 0.0), now
        good = [item[0] for item in items if item[1] in _GOOD]
        if good and work.chunk.gateway:
            self._recorder.count(work.pool.workspace, work.pool.app_id, work.pool.id)
            if not work.noted and not self._waited_for(work, container):
                self._remember(self._record(work, good, State.SUCCESS, container, span))
                return
        if good:
            self._add(work.pool, self._record(work, good, State.SUCCESS, container, span))
        if len(good) < len(items):
            for index, status, (form, data), _ in items:
                if status not in _GOOD:
                    reason = _reason(form, data) if index < DETAILED else ""
                    state = _STATES[Status(status)]
                    self._add(work.pool, self._record(work, [index], state, container, span, reason))

    def note(self, container: "Container", input_id: str) -> None:
        """Have a request recorded that somebody may know of; also when it was only counted a moment ago."""
        try:
            call, _ = ids.parse_input_id(input_id)
        except ValueError:
            return
        for part in container.parts.values():
            if part.work.chunk.call == call:
                part.work.noted = True
                return
        record = self._counted.get(call)
        if record is not None and record.container == container.id:  # nobody may name another's request
            del self._counted[call]
            self._add(container.pool, record)

    def calls(self, container: "Container", data: bytes) -> None:
        """Have the request recorded in which a container calls a function: it is part of a call graph."""
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            self.note(container, _read_head(data).parent)

    def _remember(self, record: InputRecord) -> None:
        self._counted[record.call] = record
        if len(self._counted) > COUNTED:
            del self._counted[next(iter(self._counted))]

    def retried(self, work: "Work", indices: Iterable[int], tried: Try) -> None:
        """Tell that an attempt ended and another follows."""
        span = tried.started, tried.finished
        record = self._record(work, list(indices), State.RETRIED, tried.container, span, tried.reason)
        self._add(work.pool, record)

    def submitted(self, pool: Pool, subject: str, data: bytes) -> None:
        """Tell that a container of a pool has called a function."""
        try:
            head, target = _read_head(data), subjects.parse_inputs(subject)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            return  # whoever takes it finds out
        record = InputRecord(
            head.call, runs_of(head.indices), State.QUEUED, head.attempt, target.pool,
            head.parent, head.root, "", head.sent, 0.0, 0.0, method=head.method,
        )  # fmt: skip
        self._add(pool, record)

    async def watch(self, containers: "Mapping[str, Container]") -> None:
        """Tell of inputs that run for long, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = asyncio.get_running_loop().time()
            for container in list(containers.values()):
                self._look(container, now)

    def _look(self, container: "Container", now: float) -> None:
        since = now - container.progress
        if since < RUNS_LONG:
            return
        for part in container.parts.values():
            if part.running not in (-1, part.told):
                part.told = part.running
                part.work.noted = True
                span = time.time() - since, 0.0
                record = self._record(part.work, [part.running], State.STARTED, container.id, span)
                self._add(part.work.pool, record)

    def _add(self, pool: Pool, record: InputRecord) -> None:
        self._recorder.add(pool.workspace, pool.app_id, record)

    def _record(
        self,
        work: "Work",
        indices: list[int],
        state: State,
        container: str,
        span: tuple[float, float],
        reason: str = "",
    ) -> InputRecord:
        chunk = work.chunk
        return InputRecord(
            chunk.call, runs_of(indices), state, chunk.attempt, work.pool.id, chunk.parent, chunk.root,
            container, chunk.sent, span[0], span[1], reason, self._waited_for(work, container), chunk.method,
        )  # fmt: skip

    def _waited_for(self, work: "Work", container: str) -> tuple[float, ...]:
        """Return the moments of a container's start, if an input was there before it was ready."""
        moments = self._starts.get(container, ())
        return moments if moments and work.chunk.sent < moments[-1] else ()


def _reason(form: int, data: bytes | Blob) -> str:
    """Return one line about a failure. User code may have made it: it can be anything."""
    if form != Format.FAILURE or not isinstance(data, bytes):
        return ""
    return reason_of(data)
