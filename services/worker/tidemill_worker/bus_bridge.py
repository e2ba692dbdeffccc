"""The worker's side of a container's bus: the operations of `tidemill._bus.socket`, checked and carried out.

    ASK ──> allowed? ──> the worker's own connection ──> ANSWER
                              │
                              └── messages of its subscriptions ──> DELIVER

The container is not trusted: what it may do stands in `permissions`, how much of it is bounded here.
Everything that it has on the bus ends with it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from math import inf
from typing import Any

from tidemill._bus.protocol import BusError, Message, PubAck, RequestFailed, Stored, StreamFull, Subscription
from tidemill._bus.socket import READ_BYTES, from_error
from tidemill._container.frames import ToRunner
from tidemill._wire import coding
from tidemill._wire.specs import Pool
from tidemill_common import streams
from tidemill_worker import permissions
from tidemill_worker.framing import FrameProtocol
from tidemill_worker.node import Node

MAX_ASKED = 1_024  # operations under way that are not stores
MAX_STORING = 64 << 20  # bytes of stores that the broker has not answered
MAX_SUBSCRIPTIONS = 1_024
MAX_BEHIND = 64 << 20  # bytes that the runner has not read; beyond it messages are lost, which it is told
MAX_TIMEOUT = 3_600.0  # seconds of a request
MAX_POOLS = 10_000  # whose workspace is remembered

Headers = dict[str, str] | None


class Bridge:
    """Answers what one container asks."""

    def __init__(self, node: Node, pool: Pool, runner: FrameProtocol) -> None:
        self._node = node
        self._pool = pool
        self._runner = runner
        self._may = permissions.of(pool.workspace)
        self._subscriptions: dict[int, Subscription | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._storing = 0  # bytes
        self.called = -inf  # when it last called a function (the loop's time)
        self.on_call: Callable[[bytes], None] = lambda _chunk: None  # hears of each call before it is stored
        self._lost = False  # messages, since the container was told
        self._pools = {handle.pool for handle in pool.handles.values()} | {pool.id}
        self._operations: dict[str, Callable[..., None]] = {
            "publish": self._publish,
            "store": self._store,
            "request": self._request,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "last": self._last,
            "read": self._read,
            "purge": self._purge,
            "flush": self._flush,
        }

    def ask(self, number: int, operation: str, arguments: list[Any]) -> None:
        """Carry out an operation; its answer is sent when it is done."""
        try:
            if self._pool.spec.restrict_access:
                raise _refused("this function was declared with restrict_modal_access=True")
            self._operations[operation](number, *arguments)
        except BusError as error:
            self._fail(number, error)

    def reconnected(self) -> None:
        """Tell the container that it may have missed messages."""
        self._lost = False
        if self._subscriptions:
            self._runner.send((ToRunner.RECONNECTED,))

    def close(self) -> None:
        """End everything that the container has on the bus."""
        for task in self._tasks:
            task.cancel()
        subscriptions, self._subscriptions = self._subscriptions, {}
        for subscription in subscriptions.values():
            if subscription is not None:
                self._node.spawn(subscription.close(), "end of a container's subscription")

    # --- answers

    def _answer(self, number: int, value: Any) -> None:
        if number:
            self._runner.send((ToRunner.ANSWER, number, True, value))

    def _fail(self, number: int, error: BusError) -> None:
        if number:
            self._runner.send((ToRunner.ANSWER, number, False, from_error(error)))

    def _start(self, number: int, work: Coroutine[Any, Any, Any]) -> None:
        """Carry out what takes its time in a task of its own."""
        if len(self._tasks) >= MAX_ASKED:
            work.close()
            raise RequestFailed("resource_exhausted", "the container asks for too much at the same time")
        task = self._node.spawn(self._finish(number, work), "a container's request")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, number: int, work: Coroutine[Any, Any, Any]) -> None:
        try:
            self._answer(number, await work)
        except BusError as error:
            self._fail(number, error)

    # --- operations

    def _publish(self, _number: int, subject: str, data: bytes, reply: str, headers: Headers) -> None:
        if self._may.may_publish(subject, headers or {}) and not reply:
            self._node.bus.publish(subject, data, headers=headers)

    def _store(self, number: int, subject: str, data: bytes, msg_id: str, headers: Headers) -> None:
        if not self._may.may_store(subject, msg_id, headers or {}):
            raise _refused(f"a container may not store on {subject}")
        if self._storing + len(data) > MAX_STORING:
            raise StreamFull("too much is unanswered")
        pool = self._may.pool_of(subject)
        if pool is not None:
            self.called = asyncio.get_running_loop().time()
            self.on_call(data)
        if pool is None or pool in self._pools:
            self._store_now(number, subject, data, msg_id, headers, called=data if pool else None)
        else:
            self._start(number, self._store_elsewhere(pool, subject, data, msg_id, headers))

    def _store_now(
        self,
        number: int,
        subject: str,
        data: bytes,
        msg_id: str,
        headers: Headers,
        *,
        called: bytes | None,
    ) -> None:
        """Store a message; `called` is it again if it is an input."""
        self._storing += len(data)

        def stored(answer: "asyncio.Future[PubAck]") -> None:
            self._storing -= len(data)
            if answer.cancelled():
                return
            error = answer.exception()
            if error is None:
                self._answer(number, tuple(answer.result()))
                if called is not None:
                    self._node.records.submitted(self._pool, subject, called)
            elif isinstance(error, BusError):
                self._fail(number, error)

        self._node.bus.store(subject, data, msg_id=msg_id, headers=headers).add_done_callback(stored)

    async def _store_elsewhere(
        self, pool: str, subject: str, data: bytes, msg_id: str, headers: Headers
    ) -> tuple[Any, ...]:
        """Store an input of a pool that was not met before, if it is one of the same workspace."""
        self._storing += len(data)
        try:
            record = await self._node.bus.bucket(streams.POOLS).get(pool)
            if record is None or coding.decode(Pool, record).workspace != self._pool.workspace:
                raise _refused(f"the function of pool {pool} is not known in this workspace")
            if len(self._pools) < MAX_POOLS:
                self._pools.add(pool)
            stored = await self._node.bus.store(subject, data, msg_id=msg_id, headers=headers)
            self._node.records.submitted(self._pool, subject, data)
            return tuple(stored)
        finally:
            self._storing -= len(data)

    def _request(self, number: int, subject: str, data: bytes, timeout: float, headers: Headers) -> None:
        if not self._may.may_request(subject) or not permissions.may_carry(headers or {}):
            raise _refused(f"a container may not ask on {subject}")
        timeout = min(float(timeout), MAX_TIMEOUT)
        self._start(number, self._node.bus.request(subject, data, timeout=timeout, headers=headers))

    def _subscribe(self, number: int, subscription: int, subject: str, queue: str) -> None:
        if not self._may.may_subscribe(subject) or queue:
            raise _refused(f"a container may not listen to {subject}")
        if subscription in self._subscriptions or len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise RequestFailed("resource_exhausted", "the container has too many subscriptions")
        self._start(number, self._listen(subscription, subject, queue))
        self._subscriptions[subscription] = None

    async def _listen(self, subscription: int, subject: str, queue: str) -> None:
        def deliver(message: Message) -> None:
            self._deliver(subscription, message)

        try:
            live = await self._node.bus.subscribe(subject, deliver, queue=queue)
        except BaseException:
            self._subscriptions.pop(subscription, None)
            raise
        if subscription in self._subscriptions:
            self._subscriptions[subscription] = live
        else:  # it was ended meanwhile
            await live.close()

    def _deliver(self, subscription: int, message: Message) -> None:
        """Pass a message on. A runner that does not read loses messages, as on a slow connection."""
        behind = self._runner.waiting()
        if behind > MAX_BEHIND:
            self._lost = True
            return
        if self._lost:
            self.reconnected()
        subject, data, reply, headers = message
        self._runner.send((ToRunner.DELIVER, subscription, subject, data, reply, dict(headers) or None))

    def _unsubscribe(self, _number: int, subscription: int) -> None:
        live = self._subscriptions.pop(subscription, None)
        if live is not None:
            self._node.spawn(live.close(), "end of a container's subscription")

    def _last(self, number: int, stream: str, subject: str) -> None:
        if not self._may.may_read(stream, subject):
            raise _refused(f"a container may not read {subject}")
        self._start(number, self._get_last(stream, subject))

    async def _get_last(self, stream: str, subject: str) -> tuple[Any, ...] | None:
        stored = await self._node.bus.last(stream, subject)
        return None if stored is None else _as_sent(stored)

    def _read(self, number: int, stream: str, subject: str, since: float | None, sequence: int) -> None:
        if not self._may.may_read(stream, subject):
            raise _refused(f"a container may not read {subject}")
        self._start(number, self._get_batch(stream, subject, since, sequence))

    async def _get_batch(
        self, stream: str, subject: str, since: float | None, sequence: int
    ) -> tuple[list[tuple[Any, ...]], int | None]:
        batch: list[tuple[Any, ...]] = []
        size = 0
        reading = self._node.bus.read(stream, subject, since=since, sequence=sequence)
        async with aclosing(reading):  # type: ignore[type-var]  # every implementation is a generator
            async for stored in reading:
                batch.append(_as_sent(stored))
                size += len(stored.data)
                if size >= READ_BYTES:
                    return batch, stored.sequence + 1
        return batch, None

    def _purge(self, number: int, stream: str, subject: str, below: int) -> None:
        if not self._may.may_purge(stream, subject):
            raise _refused(f"a container may not remove {subject}")
        self._start(number, self._node.bus.purge(stream, subject, below=below))

    def _flush(self, number: int) -> None:
        self._start(number, self._node.bus.flush())


def _refused(message: str) -> RequestFailed:
    return RequestFailed("permission_denied", message)


def _as_sent(stored: Stored) -> tuple[Any, ...]:
    return stored.subject, stored.data, stored.sequence, stored.time, dict(stored.headers) or None
