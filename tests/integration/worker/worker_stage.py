"""A stage for one worker: the test plays the scheduler, which places, and the caller, who calls."""

import asyncio
import dataclasses
import hashlib
import textwrap
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import waiting

from tidemill import _source
from tidemill._bus import blobs
from tidemill._bus.protocol import Message
from tidemill._wire import coding, failure, ids, payload, subjects
from tidemill._wire.images import GetResolution, PutResolution, Resolution
from tidemill._wire.messages import Chunk, Credit, LogRecord, Output, Outputs, Payload, Status
from tidemill._wire.scheduling import (
    ContainerEvent,
    ContainerState,
    Placement,
    PlacementAnswer,
    StopContainers,
    WorkerState,
)
from tidemill._wire.specs import FunctionSpec, ImageSpec, Pool, Source
from tidemill_common import streams
from tidemill_common.bus.nats import NatsServiceBus
from tidemill_common.metrics import new_registry
from tidemill_common.requests import Endpoints

TIMEOUT = waiting.PATIENCE
WORKSPACE = "main"


@dataclasses.dataclass
class Arrived:
    """An output as it came to the caller."""

    call: str
    attempt: int
    output: Output
    seconds: float
    container: str
    at: float

    @property
    def value(self) -> Any:
        return payload.decode(self.output.payload.format, self.output.payload.data)

    @property
    def error(self) -> BaseException:
        assert isinstance(self.output.payload.data, bytes)
        return failure.to_exception(self.output.payload.data)


class Stage:
    """What a test does with one worker and real NATS."""

    def __init__(self, bus: NatsServiceBus) -> None:
        self.bus = bus
        self.caller = ids.new(ids.CALLER)
        self.reply = subjects.replies(WORKSPACE, self.caller)
        self.states: dict[str, WorkerState] = {}
        self.events: list[ContainerEvent] = []
        self.outputs: list[Arrived] = []
        self.logs: list[LogRecord] = []
        self.order: list[tuple[str, Any]] = []  # logs and outputs as they came
        self.term = 1
        self._reports = 0  # that have come
        self._needed = 0  # of them until all that was placed has been reported, if it is still there
        self.resolutions: dict[str, tuple[str, ...]] = {}
        self._accepted: list[str] = []
        self._changed = asyncio.Event()

    async def open(self) -> None:
        await streams.apply(self.bus, WORKSPACE)
        await self._keep_resolutions()
        await self.bus.subscribe(subjects.ALL_WORKER_STATES, self._on_state)
        await self.bus.subscribe(subjects.ALL_CONTAINER_EVENTS, self._on_event)
        await self.bus.subscribe(self.reply, self._on_outputs)
        await self.bus.subscribe("tm.logs.>", self._on_logs)

    async def _keep_resolutions(self) -> None:
        """Play the registry that keeps what images were resolved to: the first one of each stays."""

        async def get(_workspace: str, request: GetResolution) -> Resolution:
            return Resolution(self.resolutions.get(request.key))

        async def put(_workspace: str, request: PutResolution) -> Resolution:
            return Resolution(self.resolutions.setdefault(request.key, request.layers))

        make = Endpoints(structlog.get_logger(), new_registry("stage", "1"))
        endpoints = {
            subjects.images(WORKSPACE, "get_resolution"): make.endpoint("get", GetResolution, get),
            subjects.images(WORKSPACE, "put_resolution"): make.endpoint("put", PutResolution, put),
        }
        await self.bus.serve("tidemill-images", "1.0.0", endpoints)

    def _on_state(self, message: Message) -> None:
        state = coding.decode(WorkerState, message.data)
        self.states[state.worker] = state
        self._reports += 1
        self._changed.set()

    def _on_event(self, message: Message) -> None:
        self.events.append(coding.decode(ContainerEvent, message.data))
        self._changed.set()

    def _on_outputs(self, message: Message) -> None:
        outputs = coding.decode(Outputs, message.data)
        now = time.monotonic()
        for item in outputs.items:
            arrived = Arrived(outputs.call, outputs.attempt, item, outputs.seconds, outputs.container, now)
            self.outputs.append(arrived)
            self.order.append(("output", arrived))
        self._changed.set()

    def _on_logs(self, message: Message) -> None:
        records = coding.decode(list[LogRecord], message.data)
        self.logs += records
        self.order += [("log", record) for record in records]
        self._changed.set()

    async def until(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
        """Wait until something that arrives makes the condition true; return what it returned."""
        async with asyncio.timeout(timeout):
            while not (result := condition()):
                self._changed.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        return result

    # --- the scheduler's part

    @property
    def worker(self) -> str:
        return next(iter(self.states))

    @property
    def containers(self) -> tuple[ContainerState, ...]:
        """Those of the first worker, as far as its last report tells."""
        return self.states[self.worker].containers

    def pid(self, container: str) -> int:
        """Return the pid of a container's init, or 0 until it was reported."""
        return next((one.pid for one in self.containers if one.container == container), 0)

    async def pool(self, code: str, function: str = "f", **spec: Any) -> Pool:
        """Make the record of a pool whose function stands in `code`."""
        bundle = _source.pack({"user.py": textwrap.dedent(code).encode()})
        digest = hashlib.sha256(bundle).hexdigest()
        await blobs.put_named(self.bus, WORKSPACE, digest, bundle)
        image = spec.pop("image", ImageSpec())
        source = Source((digest,), "user", function)
        pool_id = ids.new(ids.POOL)
        shard = 0
        return Pool(
            id=pool_id,
            app_id=ids.new(ids.APP),
            app_name="test",
            function_id=ids.new(ids.FUNCTION),
            workspace=WORKSPACE,
            environment="main",
            capability="cpu",
            shard=shard,
            stream=subjects.inputs_stream("cpu", shard),
            prefix=subjects.inputs_prefix(WORKSPACE, "cpu", shard, pool_id),
            spec=FunctionSpec(function, source, image, **spec),
        )

    async def ask_to_place(self, pool: Pool, container: str = "", **order: Any) -> PlacementAnswer:
        await self.until(lambda: self.states)
        worker = order.pop("worker", "") or self.worker
        placement = Placement(
            container or ids.new(ids.CONTAINER), pool, order.pop("term", self.term), **order
        )
        subject = subjects.worker(worker, "place")
        asked = coding.encode(placement)
        answer = coding.decode(PlacementAnswer, await self.bus.request(subject, asked, timeout=TIMEOUT))
        if answer.accepted:
            self._accepted.append(placement.container)
            self._needed = self._reports + 1  # a worker answers first and reports then
        return answer

    async def place(self, pool: Pool, count: int = 1) -> list[str]:
        """Have containers started; return when they are ready."""
        containers = [ids.new(ids.CONTAINER) for _ in range(count)]
        for container in containers:
            answer = await self.ask_to_place(pool, container)
            assert answer.accepted, answer.reason
        for container in containers:
            event = await self.event(container)
            assert event.state == "started", event
        return containers

    async def stop(self, *containers: str, graceful: bool = True, finish: float = 30.0) -> None:
        order = StopContainers(containers, self.term, graceful, finish)
        subject = subjects.worker(self.worker, "stop")
        await self.bus.request(subject, coding.encode(order), timeout=TIMEOUT)

    async def event(self, container: str, *states: str) -> ContainerEvent:
        """Return the first event of a container, or its first of these states."""

        def found() -> ContainerEvent | None:
            return next(
                (
                    event
                    for event in self.events
                    if event.container == container and (not states or event.state in states)
                ),
                None,
            )

        event = await self.until(found)
        assert isinstance(event, ContainerEvent)
        return event

    async def clear(self) -> None:
        """End all containers, and take everything out of the streams."""
        await self.stop(*self._accepted, graceful=False)
        for container in self._accepted:
            await self.event(container, "stopped", "failed")
        # A report from before the last placement knows nothing of what may still be ending.
        await self.until(lambda: self._reports >= self._needed and not self.containers)
        for stream in (*streams.common_streams(), *streams.workspace_streams(WORKSPACE)):
            await self.bus.purge(stream.name, ">")

    # --- the caller's part

    async def call(self, pool: Pool, *arguments: tuple[Any, ...], first: int = 0, **fields: Any) -> str:
        """Publish one chunk with an input for each tuple of arguments; return the call's id."""
        call = fields.pop("call", "") or ids.new(ids.CALL)
        inputs = [Payload(*payload.encode_call(args, {})) for args in arguments]
        return await self.submit(pool, call, inputs, first=first, **fields)

    async def submit(
        self, pool: Pool, call: str, inputs: list[Payload], *, first: int = 0, **fields: Any
    ) -> str:
        attempt = fields.pop("attempt", 0)
        chunk = Chunk(
            call,
            list(range(first, first + len(inputs))),
            attempt,
            fields.pop("reply", self.reply),
            inputs,
            time.time(),
            **fields,
        )
        subject = subjects.inputs(pool.prefix, call, first, attempt)
        key = subjects.input_key(call, first, attempt)
        await self.bus.store(subject, coding.encode(chunk), msg_id=key)
        return call

    def terminal(self, call: str) -> dict[int, Arrived]:
        """Return the first terminal output of each input of a call."""
        found: dict[int, Arrived] = {}
        for arrived in self.outputs:
            if arrived.call == call and arrived.output.status != Status.YIELD:
                found.setdefault(arrived.output.index, arrived)
        return found

    async def results(self, call: str, count: int = 1, timeout: float = TIMEOUT) -> list[Arrived]:
        """Return the terminal outputs of a call, by index, when there are so many."""
        found = await self.until(lambda: len(self.terminal(call)) >= count and self.terminal(call), timeout)
        return [found[index] for index in sorted(found)]

    async def result(self, call: str) -> Arrived:
        return (await self.results(call))[0]

    async def backlog(self, pool: Pool) -> int:
        """Return how many messages of a pool are not acknowledged."""
        waiting = self.bus.read(pool.stream, subjects.pool_inputs(pool.prefix))
        return len([stored async for stored in waiting])

    async def settled(self, pool: Pool) -> None:
        """Wait until every input of a pool has been acknowledged."""
        await eventually(lambda: self._is_settled(pool))

    async def _is_settled(self, pool: Pool) -> bool:
        return await self.backlog(pool) == 0

    def text(self, container: str = "") -> str:
        return "".join(record.text for record in self.logs if not container or record.container == container)

    def grant(self, call: str, index: int, pieces: int, size: int = 1 << 30) -> None:
        self.bus.publish(subjects.credit(WORKSPACE, call, index), coding.encode(Credit(pieces, size)))


async def eventually(condition: Callable[[], Awaitable[Any]], timeout: float = TIMEOUT) -> Any:
    """Wait until an asynchronous condition holds; return what it returned."""
    return await waiting.until(condition, timeout)
