"""Kept calls are started: inputs are queued, each under its index, and the call's record is stored.

Whoever starts one answers when everything is queued. See `_kept` for how they are read.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tidemill import _client, exception
from tidemill._caller import settling, warn
from tidemill._feed import NEVER, Feed
from tidemill._map_call import BACKOFF, BACKOFF_MAX, TOLD_AFTER
from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import CallRecord, FunctionHandle
from tidemill._wire.messages import Chunk, Payload
from tidemill._wire.payload import INLINE_LIMIT

if TYPE_CHECKING:
    from tidemill._caller import Caller
    from tidemill.function_call import FunctionCall
    from tidemill.functions import Function

UNSTORED, UNSTORED_BYTES = 1_024, 16 << 20  # inputs on their way into the queue

Origin = tuple[str, str]


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
    stored, refused = settling(queued)
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
