"""Calls whose results are kept (`spawn` and its relatives): how they are started, and how they are read.

A kept call is a record (`tm.results.<ws>.<call>.call`) and one stored output per input, each written once:
the first terminal result wins. To wait for one is to listen and to read: what is heard is only a bell (a core
subscriber also hears publishes that the stream refused), the value is always the stored one, read from the
stream's leader.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tidemill import _client, exception
from tidemill._bus.protocol import BusError, Message, Subscription
from tidemill._caller import explain, warn
from tidemill._feed import NEVER, Feed
from tidemill._map_call import BACKOFF, BACKOFF_MAX, TOLD_AFTER
from tidemill._outcome import Outcome
from tidemill._wire import coding, failure, ids, subjects
from tidemill._wire.control import CallRecord, CancelCall, Done, FunctionHandle, Trouble
from tidemill._wire.messages import Blob, Chunk, Format, Outputs, Payload, Status
from tidemill._wire.payload import INLINE_LIMIT
from tidemill.config import MAX_PAYLOAD_LIMIT

if TYPE_CHECKING:
    from tidemill._caller import Caller
    from tidemill.function_call import FunctionCall
    from tidemill.functions import Function

LOOK = 2.0  # seconds between looks for a result, for want of a bell
KEPT = 7 * 86_400.0
UNSTORED, UNSTORED_BYTES = 1_024, 16 << 20  # inputs on their way into the queue

Origin = tuple[str, str]
T = TypeVar("T")


# --- starting


async def spawn(
    function: "Function[Any, Any, Any]", form: int, data: bytes, origin: Origin
) -> "FunctionCall[Any]":
    """Start one kept input; return when it is queued.

    Raises:
        ResourceExhaustedError: the queue is full.
    """
    client = _client.current(function._client)
    caller = await client.connect()
    handle = await function._find(client)
    function._check_callable(handle, "spawn")
    call = ids.new(ids.CALL)
    payload = await _payload(caller, form, data)
    await asyncio.gather(
        _store_record(caller, handle, call, 1), _submit(caller, handle, call, 0, payload, origin)
    )
    return _function_call(function, client, call)


async def spawn_map(
    function: "Function[Any, Any, Any]", name: str, feed: Feed, origin: Origin
) -> "FunctionCall[Any]":
    """Start one kept input per element; return when all of them are queued. Waits while the queue is full."""
    client = _client.current(function._client)
    try:
        caller = await client.connect()
        handle = await function._find(client)
        function._check_callable(handle, name)
        call = ids.new(ids.CALL)
        count = await _Spawning(caller, handle, call, feed, origin).run()
    finally:
        feed.stop()
    # The record comes last because only now the number of inputs is known; nobody has the id before.
    await _store_record(caller, handle, call, count)
    return _function_call(function, client, call)


async def start(
    caller: "Caller", handle: FunctionHandle, call: str, inputs: Mapping[int, tuple[int, bytes]], total: int
) -> CallRecord:
    """Start a kept call of `total` inputs under an id; return its record when those given are queued.

    The call's record comes last: where it is, every input was queued. Until then this may be repeated:
    what is queued is not queued twice. What has finished already is to be left out.

    Raises:
        ResourceExhaustedError: the queue is full. Some inputs may be in it.
    """
    for first in range(0, len(inputs), UNSTORED):
        some = list(inputs.items())[first : first + UNSTORED]
        async with asyncio.TaskGroup() as group:
            for index, (form, data) in some:
                group.create_task(_start_one(caller, handle, call, index, form, data))
    return await _store_record(caller, handle, call, total)


async def _start_one(
    caller: "Caller", handle: FunctionHandle, call: str, index: int, form: int, data: bytes
) -> None:
    await _submit(caller, handle, call, index, await _payload(caller, form, data), ("", ""))


class _Spawning:
    """Stores inputs as they are read, a window of them at a time."""

    def __init__(
        self, caller: "Caller", handle: FunctionHandle, call: str, feed: Feed, origin: Origin
    ) -> None:
        self._caller = caller
        self._handle = handle
        self._call = call
        self._feed = feed
        self._origin = origin
        self._bell = asyncio.Event()
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = False
        self._backoff = 0.0
        self._holding: asyncio.Future[None] | None = None

    async def run(self) -> int:
        """Return how many there were. An input that cannot be stored ends it, and so does the iterator."""
        self._feed.attach(self._bell.set)
        count = 0
        try:
            async with asyncio.TaskGroup() as group:
                while await self._next():
                    form, data = self._feed.pop()
                    task = group.create_task(self._store(count, form, data))
                    self._tasks.add(task)
                    task.add_done_callback(self._stored)
                    self._bytes += len(data)
                    count += 1
        except BaseException as error:  # a wait that is given up too: nobody will ever have the id
            self._caller.cancel(self._call, self._handle, num_inputs=count)
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise
        return count

    async def _next(self) -> bool:
        """Wait for an input and for room; return whether there is one more."""
        while True:
            self._bell.clear()
            if self._feed.error is not None:
                raise self._feed.error
            if len(self._tasks) < UNSTORED and self._bytes < UNSTORED_BYTES:
                if self._feed.items:
                    return True
                if self._feed.exhausted:
                    return False
                if self._feed.want(1):
                    continue
            else:
                self._feed.want(NEVER)
            await self._bell.wait()

    def _stored(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._bell.set()

    async def _store(self, index: int, form: int, data: bytes) -> None:
        payload = await _payload(self._caller, form, data)
        while True:
            try:
                await _submit(self._caller, self._handle, self._call, index, payload, self._origin)
            except exception.ResourceExhaustedError:
                await self._hold()
            else:
                self._bytes -= len(data)
                self._backoff = 0.0
                return

    async def _hold(self) -> None:
        """Wait before the full queue is tried again: all inputs together, longer as long as none gets in."""
        if self._holding is None or self._holding.done():
            self._backoff = min(BACKOFF_MAX, self._backoff * 2 or BACKOFF)
            self._holding = asyncio.ensure_future(asyncio.sleep(self._backoff))
            if self._backoff >= TOLD_AFTER and not self._told:
                self._told = True
                warn(f"the queue of {self._handle.name} is full: waiting for room")
        await asyncio.shield(self._holding)


def _function_call(
    function: "Function[Any, Any, Any]", client: "_client.Client", call: str
) -> "FunctionCall[Any]":
    from tidemill.function_call import FunctionCall

    return FunctionCall(call, client if function._client is not None else None)


async def _payload(caller: "Caller", form: int, data: bytes) -> Payload:
    return Payload(form, data if len(data) <= INLINE_LIMIT else await caller.put_blob(data))


async def _submit(
    caller: "Caller", handle: FunctionHandle, call: str, index: int, payload: Payload, origin: Origin
) -> None:
    chunk = Chunk.first(
        call, [index], [payload], origin=origin, collect=handle.is_generator, method=handle.method
    )
    queued: asyncio.Future[None] = caller.loop.create_future()

    def stored() -> None:
        if not queued.done():
            queued.set_result(None)

    def refused(error: BaseException) -> None:
        if not queued.done():
            queued.set_exception(error)

    caller.submit(handle, call, index, coding.encode(chunk), stored=stored, refused=refused)
    await queued


async def _store_record(caller: "Caller", handle: FunctionHandle, call: str, num_inputs: int) -> CallRecord:
    record = CallRecord(
        call,
        handle.pool,
        handle.prefix,
        num_inputs,
        time.time(),
        handle.app_id,
        handle.restrict_output,
        handle.method,
    )
    await caller.store(subjects.call_record(caller.workspace, call), coding.encode(record), f"{call}.call")
    return record


# --- reading


class Stored(NamedTuple):
    """What a stored output says, apart from its value."""

    status: int
    container: str


class KeptCall:
    """What is stored about a kept call, as one reader sees it. `max_size` bounds results (bytes)."""

    def __init__(
        self,
        caller: "Caller",
        call: str,
        *,
        max_size: int = MAX_PAYLOAD_LIMIT,
        record: CallRecord | None = None,
    ) -> None:
        self.caller = caller
        self._max_size = max_size
        self.call = call
        self._workspace = caller.workspace
        self._stream = subjects.results_stream(caller.workspace)
        self._record = record
        self._restricted: bool | None = record.restrict_output if record is not None else None

    async def record(self) -> CallRecord:
        """Return the call's own record; `OutputExpiredError` when it is gone."""
        if self._record is None:
            self._record = await self._read_record()
        return self._record

    async def _read_record(self) -> CallRecord:
        data = await self._stored(subjects.call_record(self._workspace, self.call))
        if data is None:
            raise exception.OutputExpiredError(
                f"nothing is stored about {self.call}",
                hint=f"results are kept for {KEPT / 86_400:g} days",
            )
        return coding.decode(CallRecord, data)

    async def result(self, index: int, timeout: float | None) -> Outcome:
        """Return an input's terminal output, waiting up to `timeout` seconds for it (None: for ever).

        Raises:
            TimeoutError: it is not there yet (the builtin one).
            OutputExpiredError: it was there, and its time is over.
        """
        if timeout is None or timeout > 0:
            try:
                async with asyncio.timeout(timeout):
                    return await self._wait(index)
            except TimeoutError:
                raise TimeoutError(f"{self.call} is not finished after {timeout:g} s") from None
        found = await self.look(index)
        if found is None:
            await self._check(index)
            raise TimeoutError(f"{self.call} is not finished")
        return found

    async def look(self, index: int) -> Outcome | None:
        """Return an input's terminal output if it is stored."""
        data = await self._stored(subjects.result(self._workspace, self.call, index))
        if data is None:
            return None
        if self._restricted is None:
            self._restricted = (await self._read_record()).restrict_output
        output = coding.decode(Outputs, data).items[0]
        form, body = output.payload
        if not isinstance(body, bytes) and Blob(*body).size > self._max_size:
            raise exception.RequestSizeError(
                f"the result has {Blob(*body).size:,} bytes, read here are up to {self._max_size:,}"
            )
        outcome = await self.caller.outcome(output.status, form, body, keep=True)
        return outcome._replace(restricted=self._restricted)

    async def outputs(self) -> dict[int, "Stored"]:
        """Return, for every input that has its output, what that says. Reads all of them."""
        found: dict[int, Stored] = {}
        try:
            async for stored in self.caller.bus.read(
                self._stream, subjects.call_results(self._workspace, self.call)
            ):
                if stored.subject != subjects.call_record(self._workspace, self.call):
                    outputs = coding.decode(Outputs, stored.data)
                    output = outputs.items[0]
                    found[output.index] = Stored(output.status, outputs.container)
        except BusError as error:
            raise explain(error) from error
        return found

    async def _wait(self, index: int) -> Outcome:
        bell, trouble = asyncio.Event(), list[Trouble]()

        def on_trouble(final: Trouble) -> None:
            trouble.append(final)
            bell.set()

        subscription = await self._listen(index, bell)
        try:
            found = await self._unless_away(self.look(index))
            if found is not None:
                return found
            while (record := await self._unless_away(self._check(index))) is None:
                await _ring_or_time(bell)
            with self.caller.listening(record.pool, on_trouble):
                while found is None:
                    await _ring_or_time(bell)
                    given_up = list(trouble)
                    found = await self._unless_away(self.look(index))
                    if found is None and given_up:
                        return _given_up(given_up[0])
            return found
        finally:
            if subscription is not None:
                await subscription.close()

    async def _listen(self, index: int, bell: asyncio.Event) -> Subscription | None:
        def ring(_: Message) -> None:
            bell.set()

        try:
            return await self.caller.bus.subscribe(subjects.result(self._workspace, self.call, index), ring)
        except BusError:
            return None  # not connected for the moment: the looks go on

    async def _unless_away(self, answer: Awaitable[T]) -> T | None:
        """Return an answer; a connection that is gone for a while is no reason to give up waiting."""
        try:
            return await answer
        except (exception.ConnectionError, exception.ServiceError):
            return None

    async def _check(self, index: int) -> CallRecord:
        """Return the record of a call that has not the output; it may be gone since it was read last."""
        record = self._record = await self._read_record()
        if not 0 <= index < record.num_inputs:
            raise exception.InvalidError(f"{self.call} has {record.num_inputs} inputs, there is no {index}")
        return record

    async def _stored(self, subject: str) -> bytes | None:
        try:
            stored = await self.caller.bus.last(self._stream, subject)
        except BusError as error:
            raise explain(error) from error
        return stored.data if stored is not None else None


async def _ring_or_time(bell: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK):
            await bell.wait()
    bell.clear()


def _given_up(trouble: Trouble) -> Outcome:
    data = trouble.failure or failure.from_text("RemoteError", trouble.message)
    return Outcome(Status.FAILURE, Format.FAILURE, data)


async def cancel(client: "_client.Client", kept: KeptCall, *, terminate_containers: bool) -> None:
    """End a kept call: what has no result gets a cancelled one."""
    record = await kept.record()
    request = CancelCall(
        record.call, record.prefix, record.num_inputs, True, terminate_containers, record.method
    )
    await client.request("scheduler", "cancel", request, Done)
