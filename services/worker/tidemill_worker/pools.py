"""One pool on this worker: its pull, its containers here, and the chunks between them.

    delivery ──> read ──> (fetch blobs) ──> a free container, or `waiting`
                                                │
    acknowledged <── stored <── outbox <── outputs of the container

A chunk is one message. A container that is idle while another has inputs that wait takes its share of
them. Whatever ends a container, each input that it had gets its fate from one table in `decisions`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from tidemill import exception
from tidemill._bus import blobs
from tidemill._bus.protocol import BusError
from tidemill._wire import failure
from tidemill._wire.messages import Blob, Status
from tidemill._wire.specs import Pool
from tidemill_common import streams
from tidemill_common.bus.protocol import Delivery
from tidemill_worker import decisions, work
from tidemill_worker.attempts import Attempts
from tidemill_worker.container import Container, RawOutput
from tidemill_worker.dead_letters import bury_unreadable
from tidemill_worker.decisions import Exit, Fate, Killed, Phase
from tidemill_worker.fates import Fates
from tidemill_worker.leases import Leases
from tidemill_worker.node import Node
from tidemill_worker.outputs import Item, Outbox
from tidemill_worker.work import Part

RETRY_FETCH = 1.0  # seconds until a blob that could not be read is asked for again
REBALANCE = 0.01  # seconds between looks for work that waits while a container is idle
_SMOOTHING = 0.3  # weight of the newest measurement in a mean
_TERMINAL = frozenset(
    {Status.SUCCESS, Status.FAILURE, Status.CANCELLED, Status.DONE}
)  # what a runner may send


class PoolQueue:
    """The inputs of one pool on this worker."""

    def __init__(
        self,
        node: Node,
        pool: Pool,
        leases: Leases,
        outbox: Outbox,
        attempts: Attempts,
        stop: Callable[[str], None],
    ) -> None:
        """Begin without containers. `stop` ends one (by its id) that has done all it was made for."""
        self.pool = pool
        self.containers: dict[str, Container] = {}  # those that take work
        self._node = node
        self._leases = leases
        self._outbox = outbox
        self._attempts = attempts
        self._fates = Fates(node, pool, outbox, attempts)
        self._stop = stop
        self._webs = pool.spec.webs  # by method: each request is answered once
        unwanted = self._pass_on if self._webs else None
        self._puller = node.bus.pull(streams.pool_consumer(pool), self._on_delivery, unwanted)
        self._all: dict[str, Container] = {}  # also those that only finish what they have
        self._idle: dict[Container, None] = {}  # the one that worked last is the last
        self._waiting: deque[Part] = deque()
        self._parts = 0  # in containers, waiting, or being fetched
        self._input_seconds: float | None = None
        self._chunk_seconds: float | None = None
        self._chunk_bytes: float | None = None
        self._appetite = decisions.appetite(pool.spec, None)
        self._one_by_one = (
            pool.spec.single_use_containers or bool(self._webs) or decisions.together(pool.spec)
        )
        self._batching: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._closed = False

    # --- containers come and go

    def add(self, container: Container) -> None:
        """Give work to a container from now on."""
        self.containers[container.id] = self._all[container.id] = container
        self._feed(container)
        self._pull()

    def remove(self, container: Container) -> None:
        """Give no more work to a container. With the last one all that waits is handed back."""
        self.containers.pop(container.id, None)
        self._idle.pop(container, None)
        if not self.containers:
            while self._waiting:
                self._elsewhere(self._waiting.popleft())
        self._pull()

    def retire(self, container: Container) -> None:
        """Let a container finish what runs, and give the rest of what it has to others."""
        self.remove(container)
        container.retire()

    def on_end(self, container: Container, end: Exit) -> None:
        """Decide about the inputs that a container had when it ended."""
        self.remove(container)
        self._all.pop(container.id, None)
        running_now = sum(part.running != -1 for part in container.parts.values())
        verdict = decisions.verdict(end, running_now)
        for part in list(container.parts.values()):
            self._parts -= 1
            if part.work.chunk.method in self._webs:
                self._fates.of_request(container, part)
                continue
            running = part.running
            mine = self._fates.of_running(container, part, verdict)
            if mine.fate is Fate.SPARED:
                pass
            elif running in part.left and decisions.is_to_blame(mine, len(part.left)):
                pieces = container.pieces(part, running)
                self._fates.judge(container, part.work, running, part.left.pop(running), mine, pieces)
            elif running in part.left:
                while len(part.left) > 1:
                    self._requeue(part.take([part.first()]))
            if part.left:
                self._requeue(part)
        container.parts.clear()
        self._pull()

    @property
    def is_empty(self) -> bool:
        """Whether no container of the pool is here."""
        return not self._all

    async def close(self) -> None:
        """Pull no more and hand back what waits."""
        self._closed = True
        self._pull()
        while self._waiting:
            self._elsewhere(self._waiting.popleft())
        for timer in (self._looking, self._batching):
            if timer is not None:
                timer.cancel()
        await self._puller.close()

    # --- inputs come

    def _pull(self) -> None:
        """Ask for as many chunks as there is room for."""
        slots = 0
        if not self._closed:
            given_up = sum(decisions.slots(self.pool.spec) - one.slots for one in self.containers.values())
            slots = decisions.wanted(self._appetite, len(self.containers), self._parts + given_up)
        self._puller.want(slots, first=decisions.at_once(self.pool.spec, len(self._idle)))

    def _on_delivery(self, delivery: Delivery) -> None:
        try:
            held = work.read(delivery, self.pool, self._node.clock())
        except ValueError as error:
            self._node.spawn(bury_unreadable(self._node, self.pool, delivery, str(error)), "bury")
            return
        if self._leases.is_repeat(held):
            self._pull()
            return
        self._leases.take(held)
        if (held.workspace, held.chunk.call) in self._node.cancelled:
            held.voided = True
            self._fates.cancelled(held, held.chunk.indices)
            self._pull()
            return
        if delivery.redelivered and held.chunk.method in self._webs:
            self._fates.lost_request(held)
            self._pull()
            return
        self._chunk_bytes = _mean(self._chunk_bytes, len(delivery.data))
        part = work.whole_part(held)
        if self._one_by_one and len(part.left) > 1:
            while len(part.left) > 1:
                self._enqueue(part.take([part.first()]))
        self._enqueue(part)

    def _pass_on(self, delivery: Delivery) -> None:
        """Let another worker have a request that came when none was wanted any more."""
        try:
            held = work.read(delivery, self.pool, self._node.clock())
        except ValueError as error:
            self._node.spawn(bury_unreadable(self._node, self.pool, delivery, str(error)), "bury")
            return
        if self._leases.is_repeat(held):
            return
        self._leases.take(held)
        if delivery.redelivered and held.chunk.method in self._webs:
            self._fates.lost_request(held)
        else:
            self._attempts.elsewhere(held, self.pool, dict(work.whole_part(held).left))

    def _enqueue(self, part: Part) -> None:
        """Bring a new part to a container, or have it wait for one."""
        self._parts += 1
        if part.fetched is None and (large := part.blobs()):
            self._node.spawn(self._fetch(part, large), "fetch payloads")
        else:
            self._place(part)

    def _place(self, part: Part) -> None:
        if part.work.voided:
            self._parts -= 1
            self._fates.cancelled(part.work, list(part.left))
        elif self.containers and self.pool.spec.batching is not None:
            part.placed = asyncio.get_running_loop().time()
            self._waiting.append(part)
            self._send_batches()
        elif self._idle:
            self._idle.popitem()[0].assign(part)
            if self._idle and len(part.left) > 1:
                self._look_soon()
        elif (container := self._with_room()) is not None:
            container.assign(part)
        elif self.containers:
            self._waiting.append(part)
        else:
            self._elsewhere(part)

    def _with_room(self) -> Container | None:
        """Return a busy container that may have another chunk: to run beside others, or at hand."""
        if self._appetite.depth > 1:
            with_room = (one for one in self.containers.values() if one.takes_work and self._has_room(one))
            return min(with_room, key=lambda one: len(one.parts), default=None)
        return None

    def _has_room(self, container: Container) -> bool:
        limit = container.slots if container.together else self._appetite.depth
        return len(container.parts) < limit

    def _send_batches(self) -> None:
        """Give idle containers what has come together: a full batch, or one whose first input has waited."""
        batching = self.pool.spec.batching
        assert batching is not None
        loop = asyncio.get_running_loop()
        while self._waiting and self._idle:
            due = self._waiting[0].placed + batching.wait_ms / 1_000
            if len(self._waiting) < batching.max_batch_size and loop.time() < due:
                if self._batching is not None:
                    self._batching.cancel()
                self._batching = loop.call_at(due, self._send_batches)
                return
            size = min(len(self._waiting), batching.max_batch_size)
            self._idle.popitem()[0].assign_batch([self._waiting.popleft() for _ in range(size)])

    def _feed(self, container: Container) -> None:
        """Give a container that has room what waits, or note that it is idle."""
        if not container.takes_work:
            return
        if self.pool.spec.batching is not None:
            self._idle[container] = None
            self._send_batches()
            return
        while self._waiting and self._has_room(container):
            container.assign(self._waiting.popleft())
            if not container.together:
                return
        if not container.parts:
            self._idle[container] = None
            self._look_soon()

    async def _fetch(self, part: Part, large: dict[int, Blob]) -> None:
        """Fetch the payloads of a part that lie in the object store, side by side."""
        part.fetched = {}
        await asyncio.gather(*(self._fetch_one(part, index, blob) for index, blob in large.items()))
        if part.left:
            self._place(part)
        else:
            self._parts -= 1
            self._pull()

    async def _fetch_one(self, part: Part, index: int, blob: Blob) -> None:
        assert part.fetched is not None
        while True:
            try:
                part.fetched[index] = await blobs.get(self._node.bus, part.work.workspace, blob)
                return
            except BusError as error:
                self._node.log.warning("a payload cannot be read yet", blob=blob.name, error=str(error))
                await asyncio.sleep(RETRY_FETCH)
            except exception.Error as error:
                del part.left[index]
                told = failure.from_text(type(error).__name__, f"the argument is lost: {error}")
                self._outbox.end(part.work, [index], Status.FAILURE, told)
                return

    # --- what containers say

    def on_outputs(self, container: Container, part: Part, outputs: list[RawOutput], seconds: float) -> None:
        """Send outputs on; decide about those that are no results."""
        items: list[Item] = []
        try:
            for index, status, form, data in outputs:
                if index not in part.left or status not in _TERMINAL or type(data) is not bytes:
                    raise ValueError(f"not an output of this container: {index!r}, {status!r}")
                payload = part.left.pop(index)
                if status == 0:
                    items.append((index, 0, (form, data), 0))
                elif item := self._fates.output(
                    container, part, index, payload, (Status(status), form, data)
                ):
                    items.append(item)
        finally:
            if items:
                alone = self._parts == 1 and bool(self._webs)  # several leave together, in one write
                self._outbox.finish(part.work, items, seconds, container.id, alone=alone)
        part.seconds += seconds
        self._input_seconds = _mean(self._input_seconds, seconds / max(1, len(outputs)))
        if not part.left:
            self._part_done(container, part)

    def on_pieces(self, container: Container, part: Part, index: int, first: int, pieces: list[Any]) -> None:
        """Send values of a generator on."""
        if index not in part.left:
            raise ValueError("values of an input that it does not have")
        items: list[Item] = [
            (index, Status.YIELD, (form, data), number) for number, (form, data) in enumerate(pieces, first)
        ]
        self._outbox.send(part.work, items, 0.0, container.id)

    def on_returned(self, container: Container, part: Part, indices: list[int]) -> None:
        """Divide what a container gave back among those that are idle."""
        taken = part.take(indices)
        if not part.left:
            self._parts -= 1
            container.finished(part)
        if taken.left:
            self._node.metrics.splits.inc()
            self._share(taken)
        self._feed_if_free(container)
        self._pull()

    def on_limit(self, container: Container, inputs: int) -> None:
        """Let so many inputs run at once in a container; none: let it finish what it has, and end."""
        if not inputs:
            self._stop(container.id)
            return
        container.slots = min(inputs, decisions.slots(self.pool.spec))
        if container.id in self.containers:
            self._feed_if_free(container)
        self._pull()

    def _part_done(self, container: Container, part: Part) -> None:
        self._parts -= 1
        container.finished(part)
        single_use = self.pool.spec.single_use_containers
        self._chunk_seconds = _mean(self._chunk_seconds, part.seconds)
        self._appetite = decisions.appetite(self.pool.spec, self._chunk_seconds, self._chunk_bytes or 0.0)
        if single_use:
            self.remove(container)
            self._stop(container.id)
            return
        self._feed_if_free(container)
        self._pull()

    def _feed_if_free(self, container: Container) -> None:
        if self._has_room(container):
            self._feed(container)

    # --- what is not finished here

    def _requeue(self, part: Part) -> None:
        """Give inputs that did not start to another container, here if there is one."""
        if part.work.voided:
            self._fates.cancelled(part.work, list(part.left))
        elif self.containers and not self._closed:
            self._enqueue(part)
        else:
            self._attempts.elsewhere(part.work, self.pool, part.left)

    def _elsewhere(self, part: Part) -> None:
        self._parts -= 1
        self._attempts.elsewhere(part.work, self.pool, part.left)

    # --- cancelling

    def cancel(self, *, kill: bool) -> None:
        """End whatever is here of calls that were cancelled (their work is `voided`)."""
        for part in [part for part in self._waiting if part.work.voided]:
            self._waiting.remove(part)
            self._parts -= 1
            self._fates.cancelled(part.work, list(part.left))
        for container in list(self._all.values()):
            for part in [part for part in container.parts.values() if part.work.voided]:
                if kill:
                    container.kill(Killed.CANCEL)
                else:
                    container.cancel(part)
        self._pull()

    # --- sharing

    def _share(self, taken: Part) -> None:
        """Spread inputs over the idle containers and the one that comes free next."""
        if taken.work.voided or not self.containers or self._closed:
            self._requeue(taken)
            return
        indices = list(taken.left)
        for share in decisions.shares(len(indices), len(self._idle) + 1):
            self._enqueue(taken.take(indices[share]))

    def _look_soon(self) -> None:
        """Look in a moment whether a container idles beside another that has too much."""
        if self._looking is None and not self._closed:
            self._looking = asyncio.get_running_loop().call_later(REBALANCE, self._look)

    def _look(self) -> None:
        self._looking = None
        if not self._idle:
            return
        now = asyncio.get_running_loop().time()
        busy = [container for container in self.containers.values() if container.phase is Phase.BUSY]
        found = [(part, container) for container in busy for part in container.parts.values()]
        if not found:
            return
        candidates = [
            (len(part.unstarted()), part, container)
            for part, container in found
            if part.number not in container.recalled
            and decisions.splits(len(part.unstarted()), self._input_seconds, now - container.progress)
        ]
        if candidates:
            _, part, container = max(candidates, key=lambda one: one[0])
            container.recall(part)
        if any(part.unstarted() for part, _ in found):
            self._look_soon()


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else before + _SMOOTHING * (newest - before)
