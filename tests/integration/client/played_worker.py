"""A worker, a registry and a scheduler as a caller sees them, played by the test on a real bus.

Inputs are taken from the real streams and answered with real messages; the functions run in the played
worker's own thread, so that the test itself may block.
"""

import asyncio
import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Self

from waiting import until

from tidemill._bus import blobs
from tidemill._bus.protocol import AlreadyHeld, Message, RequestFailed
from tidemill._wire import coding, failure, ids, payload, subjects
from tidemill._wire.control import (
    CallRecord,
    CancelCall,
    Done,
    FindQueued,
    FunctionHandle,
    GetFunction,
    Queued,
    Trouble,
)
from tidemill._wire.messages import Blob, Chunk, Credit, Format, Output, Outputs, Payload, Status
from tidemill._wire.payload import INLINE_LIMIT
from tidemill._wire.specs import FunctionSpec, Pool, Source
from tidemill.functions import Function
from tidemill_common import streams
from tidemill_common.bus import nats
from tidemill_common.bus.protocol import Delivery
from tidemill_local.broker import WORKSPACE, Broker

BOUND = 60.0  # seconds that anything here may take


class PlayedPool:
    """One function: what the worker runs for it, and what it has seen."""

    def __init__(self, name: str, function: Callable[..., Any], slots: int) -> None:
        self.function = function
        self.slots = slots
        self.is_generator = inspect.isgeneratorfunction(function)
        pool = ids.new(ids.POOL)
        self.prefix = subjects.inputs_prefix(WORKSPACE, "cpu", 0, pool)
        self.handle = FunctionHandle(
            ids.new(ids.FUNCTION), name, "ap-1", pool, self.prefix, self.is_generator
        )
        self.record = Pool(
            pool, "ap-1", "app", self.handle.function_id, WORKSPACE, "main", "cpu", 0,
            subjects.inputs_stream("cpu", 0), self.prefix, FunctionSpec(name, Source()),
        )  # fmt: skip
        self.runs: Counter[tuple[str, int]] = Counter()  # (call, index) -> executions
        self.chunks: list[int] = []  # inputs of each chunk
        self.answers_again = False  # publish every output twice
        self.loses_outputs = False  # acknowledge inputs whose outputs nobody can find
        self.held: asyncio.Event | None = None


class PlayedWorker:
    """Runs in a thread with an event loop of its own; everything public may be called from the test."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._pools: dict[str, PlayedPool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.credits: list[Credit] = []
        self.cancelled: list[CancelCall] = []
        self.demands: Counter[str] = Counter()
        self.chunks_of_calls: list[Chunk] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND)
        self._loop.close()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something on the worker's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(BOUND)

    async def _open(self) -> None:
        password = self._broker.settings.passwords["worker"]
        self.bus = await nats.connect(self._broker.url, "worker", password)
        await streams.apply(self.bus, WORKSPACE)
        asked = {"cancel": self._cancel, "find_queued": self._find_queued}
        served = {subjects.scheduler(WORKSPACE, verb): answer for verb, answer in asked.items()}
        await self.bus.serve("scheduler", "1.0.0", served)
        await self.bus.serve(
            "registry", "1.0.0", {subjects.registry(WORKSPACE, "get_function"): self._get_function}
        )
        await self.bus.subscribe("tm.demand.*.*", lambda message: self.demands.update((message.subject,)))
        await self.bus.subscribe(
            "tm.credit.>", lambda message: self.credits.append(coding.decode(Credit, message.data))
        )

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.bus.close()

    # --- pools

    def deploy(self, function: Callable[..., Any], *, slots: int = 16, name: str = "") -> PlayedPool:
        """Make a pool and begin to work for it."""
        pool = PlayedPool(name or function.__name__, function, slots)
        self._pools[pool.handle.name] = pool
        self.do(self._pull(pool))
        return pool

    def function(self, function: Callable[..., Any], *, slots: int = 16) -> Function[..., Any, Any]:
        """Deploy a function and return the caller's side of it."""
        return self.caller_of(self.deploy(function, slots=slots))

    @staticmethod
    def caller_of(pool: PlayedPool) -> Function[..., Any, Any]:
        """Return a function as an app would have made and published it."""
        made: Function[..., Any, Any] = Function(
            pool.function, name=pool.handle.name, is_generator=pool.is_generator
        )
        made._hydrate(pool.handle, None)
        return made

    def pool_of(self, function: Function[..., Any, Any]) -> PlayedPool:
        """Return the pool of a function."""
        return self._pools[function.name]

    async def _pull(self, pool: PlayedPool) -> None:
        busy: set[asyncio.Task[None]] = set()

        def on_delivery(delivery: Delivery) -> None:
            task = self._loop.create_task(self._work(pool, delivery))
            for tasks in (self._tasks, busy):
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            task.add_done_callback(lambda _: puller.want(pool.slots - len(busy)))

        await self.bus.ensure_consumer(streams.pool_consumer(pool.record))
        puller = self.bus.pull(streams.pool_consumer(pool.record), on_delivery)
        puller.want(pool.slots)

    # --- one chunk

    async def _work(self, pool: PlayedPool, delivery: Delivery) -> None:
        chunk = coding.decode(Chunk, delivery.data)
        self.chunks_of_calls.append(chunk)
        pool.chunks.append(len(chunk.indices))
        if pool.held is not None:
            await pool.held.wait()
        begun = time.monotonic()
        items = []
        for index, arguments in zip(chunk.indices, chunk.inputs, strict=True):
            pool.runs[chunk.call, index] += 1
            items.append(await self._run(pool, chunk, index, arguments))
        seconds = time.monotonic() - begun
        if not pool.loses_outputs:
            await self._answer(pool, chunk, items, seconds)
        delivery.ack()

    async def _run(self, pool: PlayedPool, chunk: Chunk, index: int, arguments: Payload) -> Output:
        data = arguments.data
        if isinstance(data, Blob):
            data = await blobs.get(self.bus, WORKSPACE, data)
        args, kwargs = payload.decode(arguments.format, data)
        try:
            if pool.is_generator:
                return await self._stream(pool, chunk, index, pool.function(*args, **kwargs))
            value = pool.function(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
        except Timeout as error:
            data = failure.from_text("FunctionTimeoutError", str(error))
            return Output(index, Status.TIMEOUT, Payload(Format.FAILURE, data))
        except Cancelled:
            data = failure.from_text("InputCancellation", "the input was cancelled")
            return Output(index, Status.CANCELLED, Payload(Format.FAILURE, data))
        except BaseException as error:
            data = failure.from_exception(error)
            return Output(index, Status.FAILURE, await self._payload(Format.FAILURE, data))
        return Output(index, Status.SUCCESS, await self._payload(*payload.encode(value)))

    async def _payload(self, form: int, data: bytes) -> Payload:
        return Payload(
            form, data if len(data) <= INLINE_LIMIT else await blobs.put(self.bus, WORKSPACE, data)
        )

    async def _stream(self, pool: PlayedPool, chunk: Chunk, index: int, pieces: Any) -> Output:
        count = 0
        try:
            for value in pieces:
                if isinstance(value, Pause):
                    await asyncio.sleep(value.seconds)
                    continue
                if isinstance(value, Lost):
                    count += 1
                    continue
                await until(lambda count=count: self._may_send(count), timeout=60)
                output = Output(index, Status.YIELD, await self._payload(*payload.encode(value)), count)
                await self._store(pool, chunk, Outputs(chunk.call, 0, [output], 0.0, "co-1"), f"p{count}")
                count += 1
        except Exception as error:
            data = failure.from_exception(error)
            return Output(index, Status.FAILURE, Payload(Format.FAILURE, data), count)
        return Output(index, Status.DONE, Payload(*payload.encode(count)), count)

    def _may_send(self, count: int) -> bool:
        return count < max([1_024, *(credit.pieces for credit in self.credits)])

    async def _answer(self, pool: PlayedPool, chunk: Chunk, items: list[Output], seconds: float) -> None:
        container = f"co-{chunk.indices[0] % pool.slots}"
        if not chunk.reply:
            for item in items:
                outputs = Outputs(chunk.call, chunk.attempt, [item], seconds, container)
                await self._keep(subjects.result(WORKSPACE, chunk.call, item.index), outputs)
            return
        outputs = Outputs(chunk.call, chunk.attempt, items, seconds, container)
        await self._store(pool, chunk, outputs, str(items[0].index))
        if pool.answers_again:
            await self._store(pool, chunk, outputs, f"{items[0].index}.again")

    async def _store(self, pool: PlayedPool, chunk: Chunk, outputs: Outputs, key: str) -> None:
        await self.bus.store(
            chunk.reply, coding.encode(outputs), msg_id=f"{chunk.call}.{chunk.attempt}.{key}"
        )

    async def _keep(self, subject: str, outputs: Outputs) -> None:
        try:
            await self.bus.store(subject, coding.encode(outputs), msg_id=f"{subject}.{outputs.attempt}")
        except AlreadyHeld:
            return

    # --- what else answers

    async def _cancel(self, asked: Message) -> bytes:
        request = coding.decode(CancelCall, asked.data)
        self.cancelled.append(request)
        await self.bus.purge(
            subjects.stream_of(request.prefix), subjects.call_inputs(request.prefix, request.call)
        )
        if request.kept:
            for index in range(request.num_inputs):
                data = failure.from_text("InputCancellation", "the input was cancelled")
                output = Output(index, Status.CANCELLED, Payload(Format.FAILURE, data))
                await self._keep(
                    subjects.result(WORKSPACE, request.call, index), Outputs(request.call, 0, [output], 0.0)
                )
        return coding.encode(Done())

    async def _find_queued(self, asked: Message) -> bytes:
        request = coding.decode(FindQueued, asked.data)
        waiting = subjects.call_inputs(request.prefix, request.call)
        found = await self.bus.last(subjects.stream_of(request.prefix), waiting)
        return coding.encode(Queued(found is not None))

    async def _get_function(self, asked: Message) -> bytes:
        request = coding.decode(GetFunction, asked.data)
        for pool in self._pools.values():
            if request.function_id == pool.handle.function_id or request.name == pool.handle.name:
                return coding.encode(pool.handle)
        raise RequestFailed("not_found", "no such function")

    def tell_trouble(self, pool: PlayedPool, message: str, error: BaseException | None = None) -> None:
        """Tell a pool's callers what is wrong; finally, with an error."""
        data = failure.from_exception(error) if error else b""
        trouble = Trouble(pool.handle.pool, message, final=error is not None, failure=data)
        self._loop.call_soon_threadsafe(
            self.bus.publish, subjects.trouble(WORKSPACE, pool.handle.pool), coding.encode(trouble)
        )

    def tell_full(self, pool: PlayedPool, message: str) -> None:
        """Tell a pool's callers that too much waits."""
        trouble = coding.encode(Trouble(pool.handle.pool, message, full=True))
        self._loop.call_soon_threadsafe(
            self.bus.publish, subjects.trouble(WORKSPACE, pool.handle.pool), trouble
        )

    def record_of(self, call: str) -> CallRecord:
        """Return a kept call's record."""
        stored = self.do(
            self.bus.last(subjects.results_stream(WORKSPACE), subjects.call_record(WORKSPACE, call))
        )
        return coding.decode(CallRecord, stored.data)


class Pause:
    """Yielded by a generator that wants the worker to wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Lost:
    """Yielded by a generator of which a piece is to be lost."""


class Timeout(Exception):
    """Raised by a function that is to be answered as one that ran too long."""


class Cancelled(Exception):
    """Raised by a function that is to be answered as cancelled."""
