"""The session of one process on the bus: what it called, and what comes back.

    calling thread    encode, one call_soon_threadsafe, wait on a plain future
    loop              `begin` a call, `submit` its chunks, match outputs to it by (call, index)

The first terminal output of an input wins; later ones are counted and dropped. Calls hear about each
other's fate only here: a pool's final trouble fails those that wait for it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgpack

from tidemill import exception
from tidemill._attached import Attached
from tidemill._bus import blobs
from tidemill._bus.protocol import (
    AlreadyHeld,
    Bus,
    BusError,
    Closed,
    Disconnected,
    NotLetIn,
    PubAck,
    RequestTimeout,
    StreamFull,
)
from tidemill._lost import SILENT_MAX, Lost, silent_since
from tidemill._outcome import Outcome
from tidemill._pools import Pools
from tidemill._replies import Replies
from tidemill._taken import Taken
from tidemill._wire import coding, failure, ids, subjects
from tidemill._wire.control import CancelCall, FindQueued, FunctionHandle, Queued, Trouble
from tidemill._wire.messages import Blob

TICK = 1.0  # seconds
SILENT = 5.0  # seconds without output after which the stream is read again, doubled each time
STORE_TRIES = 3  # of 30 s each: within the two minutes for which the stream knows a message id
TRANSFERS = 20  # blobs on their way at once
CANCEL_TIMEOUT = 5.0

_log = logging.getLogger("tidemill")


class Caller:
    """One process's calls."""

    def __init__(self, bus: Bus, workspace: str) -> None:
        self.bus = bus
        self.workspace = workspace
        self.id = ids.new(ids.CALLER)
        self.reply = subjects.replies(workspace, self.id)
        self.loop = asyncio.get_running_loop()
        self.calls: dict[str, Attached] = {}
        self.on_failing: Callable[[Trouble], None] = _ignore  # hears of pools whose containers fail to start
        self.pools = Pools(bus, workspace, self._on_final_trouble, self._on_failing, warn)
        self.replies = Replies(
            bus, subjects.replies_stream(workspace), self.reply, self._take, self._submissions
        )
        self.dropped = 0  # outputs that came for the second time, or after their call had ended
        self._taken = Taken(bus, workspace)
        self._transfers = asyncio.Semaphore(TRANSFERS)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listeners: list[tuple[str, Callable[[Trouble], None]]] = []
        self._submitted = 0
        self._pause = SILENT
        self._lost = Lost(self._is_queued, self.replies)
        self._ticking: asyncio.TimerHandle | None = None
        self._undo: Callable[[], None] = lambda: None
        self._closers: list[Callable[[], Awaitable[None]]] = []

    async def open(self) -> None:
        """Subscribe to this process's outputs."""
        await self.replies.open()
        self._undo = self.bus.on_reconnect(self.replies.read_again_twice)

    # --- calls

    def begin(self, call: Attached) -> None:
        """Expect outputs for a call."""
        self.calls[call.id] = call
        self.pools.enter(call.handle.pool)
        self._keep_ticking()

    def end(self, call: Attached) -> None:
        """Expect nothing more for a call."""
        if self.calls.pop(call.id, None) is not None:
            self.pools.leave(call.handle.pool)

    @contextmanager
    def listening(self, pool: str, on_final_trouble: Callable[[Trouble], None]) -> Iterator[None]:
        """Wait for a pool without a call of one's own: ring for it and hear that it is given up."""
        self._listeners.append((pool, on_final_trouble))
        self.pools.enter(pool)
        self._keep_ticking()
        try:
            yield
        finally:
            self._listeners.remove((pool, on_final_trouble))
            self.pools.leave(pool)

    def submit(
        self,
        handle: FunctionHandle,
        call: str,
        first: int,
        data: bytes,
        *,
        stored: Callable[[], None] | None = None,
        refused: Callable[[BaseException], None],
        patiently: bool = False,
    ) -> int:
        """Publish a chunk and ring for its pool (see `Pools.ring`); return the number of this submission.

        `stored` is called when the stream has it, `refused` with the caller's error when it will not.
        """
        self._submitted += 1
        if self.pools.full and (error := self.pools.refusal(handle.pool)):
            self.loop.call_soon(refused, error)
            return self._submitted
        subject = subjects.inputs(handle.prefix, call, first, 0)
        self._store(subject, data, subjects.input_key(call, first, 0), stored, refused, STORE_TRIES)
        self.pools.ring(handle.pool, patiently=patiently)
        return self._submitted

    def _store(
        self,
        subject: str,
        data: bytes,
        key: str,
        stored: Callable[[], None] | None,
        refused: Callable[[BaseException], None],
        tries: int,
    ) -> None:
        def answered(future: "asyncio.Future[PubAck]") -> None:
            error = None if future.cancelled() else future.exception()
            if error is None or isinstance(error, AlreadyHeld):
                if stored is not None:
                    stored()
            elif (
                isinstance(error, RequestTimeout | Disconnected)
                and not isinstance(error, NotLetIn | Closed)
                and tries > 1
            ):
                self.loop.call_later(TICK, self._store, subject, data, key, stored, refused, tries - 1)
            else:
                refused(explain(error))

        try:
            future = self.bus.store(subject, data, msg_id=key)
        except BusError as error:
            future = self.loop.create_future()
            future.set_exception(error)
        future.add_done_callback(answered)

    def store(self, subject: str, data: bytes, key: str) -> "asyncio.Future[None]":
        """Publish into a stream, persistently; the future fails with the caller's error."""
        done: asyncio.Future[None] = self.loop.create_future()
        self._store(subject, data, key, *settling(done), STORE_TRIES)
        return done

    def cancel(
        self, call: str, handle: FunctionHandle, *, num_inputs: int = 0, terminate_containers: bool = False
    ) -> None:
        """Have the scheduler end an attached call, without waiting for it."""
        request = CancelCall(call, handle.prefix, num_inputs, False, terminate_containers, handle.method)
        self.run(self._cancel(request), name=f"cancel {call}")

    async def _cancel(self, request: CancelCall) -> None:
        data = coding.encode(request)
        for _ in range(3):
            try:
                await self.bus.request(
                    subjects.scheduler(self.workspace, "cancel"), data, timeout=CANCEL_TIMEOUT
                )
                return
            except BusError as error:
                _log.debug("%s cannot be cancelled now: %s", request.call, error)
                await asyncio.sleep(TICK)

    async def _is_queued(self, call: Attached) -> bool:
        """Return whether a call has inputs that wait, run or are to be retried."""
        request = coding.encode(FindQueued(call.id, call.handle.prefix))
        answer = await self.bus.request(subjects.scheduler(self.workspace, "find_queued"), request)
        return coding.decode(Queued, answer).queued

    def run(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> "asyncio.Task[Any]":
        """Run a task that ends with this session at the latest."""
        task = self.loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- blobs

    async def put_blob(self, data: bytes) -> Blob:
        """Store a payload; some at once, the others wait."""
        async with self._transfers:
            try:
                return await blobs.put(self.bus, self.workspace, data)
            except BusError as error:
                raise explain(error) from error

    async def outcome(
        self, status: int, form: int, data: "bytes | Sequence[Any]", *, keep: bool = False
    ) -> Outcome:
        """Return an output with its bytes at hand; `keep` leaves a fetched blob for the next reader."""
        if isinstance(data, bytes):
            return Outcome(status, form, data)
        blob = Blob(*data)
        async with self._transfers:
            try:
                outcome = Outcome(status, form, await blobs.get(self.bus, self.workspace, blob))
            except BusError as error:
                raise explain(error) from error
        if not keep:
            self.drop_blob(blob)
        return outcome

    def drop_blob(self, blob: Blob) -> None:
        """Remove a payload of an attached call. What is left behind expires."""
        self.run(self._drop_blob(blob), name=f"delete {blob.name[:12]}")

    async def _drop_blob(self, blob: Blob) -> None:
        try:
            await blobs.delete(self.bus, self.workspace, blob)
        except BusError as error:
            _log.debug("a payload is left behind: %s", error)

    # --- what comes

    def _take(self, data: bytes) -> None:
        try:
            call_id, _, items, seconds, container, *way = msgpack.unpackb(data)
            if way and way[0]:
                self._taken.note(*way[:2])
            call = self.calls.get(call_id)
            if call is None:
                self.dropped += len(items)
            else:
                call.on_outputs(items, seconds, container)
        except (ValueError, TypeError, IndexError) as error:
            _log.error("an output cannot be read and is dropped: %s", error)

    def _on_final_trouble(self, trouble: Trouble) -> None:
        for pool, listener in list(self._listeners):
            if pool == trouble.pool:
                listener(trouble)
        for call in [call for call in self.calls.values() if call.handle.pool == trouble.pool]:
            if trouble.failure:
                call.fail(failure.to_exception(trouble.failure))
            else:
                call.fail(exception.RemoteError(trouble.message, hint=trouble.hint))

    def _on_failing(self, trouble: Trouble) -> None:
        self.on_failing(trouble)

    def _submissions(self) -> tuple[int, int]:
        oldest = (call.oldest() for call in self.calls.values())
        return self._submitted, min((number for number, _ in filter(None, oldest)), default=1 << 62)

    # --- time

    def _keep_ticking(self) -> None:
        if self._ticking is None:
            self._ticking = self.loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        untidy = True
        try:
            self.pools.ring_waiting()
            for call in list(self.calls.values()):
                _look_after(call, now)
            untidy = self.replies.tidy(idle=not self.calls)
            self._read_if_silent(now)
        finally:  # whatever this look meets: calls live on the next ones
            self._ticking = None
            if self.calls or self._listeners or untidy:
                self._keep_ticking()

    def _read_if_silent(self, now: float) -> None:
        since = min((silent_since(call, now) for call in self.calls.values()), default=now)
        if now - since < SILENT:
            self._pause = SILENT
        elif now - max(since, self.replies.read_at) >= self._pause:
            if self._pause == SILENT_MAX:
                self.run(self._lost.give_up(self.calls), name="look for lost calls")
            self._pause = min(SILENT_MAX, self._pause * 2)
            self.replies.read_again()

    @property
    def is_waiting(self) -> bool:
        """Whether anything is expected from the server."""
        return bool(self.calls or self._listeners)

    def fail_all(self, error: BaseException) -> None:
        """Fail every call that waits."""
        for call in list(self.calls.values()):
            call.fail(error)

    def at_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have something end with this session."""
        self._closers.append(close)

    async def close(self) -> None:
        """Fail what is outstanding and leave nothing behind."""
        self._undo()
        self._taken.tell()
        for close in self._closers:
            await close()
        if self._ticking is not None:
            self._ticking.cancel()
        self.fail_all(exception.ClientClosed("the client was closed"))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TICK)
        for task in self._tasks:
            task.cancel()
        await self.pools.close()
        try:
            await self.replies.close()
        except BusError as error:
            _log.debug("replies are left behind: %s", error)


def warn(message: str, hint: str = "") -> None:
    """Tell the user something that does not end a call: on the active output, else as a log record."""
    from tidemill import _output

    output = _output.current()
    if output is not None:
        output.warn(message, hint)
    else:
        _log.warning("%s%s", message, f" (hint: {hint})" if hint else "")


def _look_after(call: Attached, now: float) -> None:
    """Have a call look after itself. One that cannot fails alone: the others live on these looks too."""
    try:
        call.on_tick(now)
    except Exception as error:
        call.fail(error)


def _ignore(_trouble: Trouble) -> None:
    """Do nothing: callers wait, it is tried again."""


def settling(done: "asyncio.Future[None]") -> tuple[Callable[[], None], Callable[[BaseException], None]]:
    """Return what `Caller.submit` is to call, `stored` and `refused`, for a future that somebody awaits."""

    def stored() -> None:
        if not done.done():
            done.set_result(None)

    def refused(error: BaseException) -> None:
        if not done.done():
            done.set_exception(error)

    return stored, refused


def explain(error: BaseException) -> BaseException:
    """Return a bus's error as the caller's."""
    match error:
        case StreamFull():
            return exception.ResourceExhaustedError(
                "the queue is full", hint="wait until inputs have been worked off, or raise its size"
            )
        case NotLetIn():
            return exception.AuthError(str(error), hint="the token was revoked or has expired")
        case Closed():
            return exception.ClientClosed("the client was closed")
        case Disconnected():
            return exception.ConnectionError(
                f"no connection to the server: {error}", hint="start one with `tidemill up`"
            )
        case RequestTimeout():
            return exception.ServiceError(
                f"the server does not answer: {error}", hint="look with `tidemill status`"
            )
        case BusError():
            return exception.ServiceError(str(error))
    return error
