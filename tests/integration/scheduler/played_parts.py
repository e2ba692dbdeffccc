"""The parts around a scheduler, played by the test on a real bus: a worker, a registry, a caller."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import waiting

from tidemill._bus.protocol import Disconnected, Message, RequestFailed
from tidemill._wire import coding, ids, subjects
from tidemill._wire.control import Done, Trouble
from tidemill._wire.messages import Chunk, Format, Payload
from tidemill._wire.scheduling import (
    Capacity,
    ContainerEvent,
    ContainerState,
    Placement,
    PlacementAnswer,
    StopContainers,
    WorkerState,
)
from tidemill._wire.specs import FunctionSpec, Pool, Source
from tidemill_common import streams
from tidemill_common.bus.protocol import Delivery, Puller, ServiceBus

BOUND = waiting.PATIENCE  # seconds that anything here may take


async def until(condition: Callable[[], object], what: str = "", bound: float = BOUND) -> None:
    """Wait until a condition holds; fail after `bound` seconds."""
    await waiting.until(condition, bound, what)


def make_pool(pool: str = "", *, deployed: bool = False, **spec: object) -> Pool:
    """Return a pool of its own, as the registry would make it."""
    pool = pool or ids.new(ids.POOL)
    resources = spec.get("resources")
    gpus = getattr(resources, "gpus", ())
    capability = "+".join(f"gpu-{kind}" for kind, _ in gpus) or "cpu"
    return Pool(
        pool,
        "ap-1",
        "app",
        "fu-1",
        "main",
        "main",
        capability,
        0,
        subjects.inputs_stream(capability, 0),
        subjects.inputs_prefix("main", capability, 0, pool),
        FunctionSpec("f", Source(), **spec),  # type: ignore[arg-type]
        deployed=deployed,
    )


async def publish_pool(bus: ServiceBus, pool: Pool) -> None:
    """Write a pool's record as the registry does."""
    await bus.bucket(streams.POOLS).put(pool.id, coding.encode(pool))


@dataclass
class Caller:
    """Submits inputs, rings, and hears of trouble."""

    bus: ServiceBus
    pool: Pool
    reply: str = ""
    call: str = field(default_factory=lambda: ids.new(ids.CALL))
    troubles: list[Trouble] = field(default_factory=list)

    async def start(self) -> "Caller":
        """Listen for trouble."""
        await self.bus.subscribe(
            subjects.trouble(self.pool.workspace, self.pool.id),
            lambda message: self.troubles.append(coding.decode(Trouble, message.data)),
        )
        return self

    def chunk(self, index: int, attempt: int = 0) -> Chunk:
        """Return a chunk of one input."""
        payload = Payload(Format.MSGPACK, b"\x90")
        return Chunk(self.call, [index], attempt, self.reply, [payload], time.time())

    async def submit(self, count: int = 1, *, ring: bool = True) -> None:
        """Store inputs and ring the bell once."""
        stores = [
            self.bus.store(
                subjects.inputs(self.pool.prefix, self.call, index, 0),
                coding.encode(self.chunk(index)),
                msg_id=subjects.input_key(self.call, index, 0),
            )
            for index in range(count)
        ]
        await asyncio.gather(*stores)
        if ring:
            self.ring()

    def ring(self) -> None:
        """Tell the scheduler that there is work."""
        self.bus.publish(subjects.demand(self.pool.workspace, self.pool.id), b"")


class PlayedWorker:
    """Answers orders and sends reports as a worker does; what its containers do, the test says."""

    def __init__(self, bus: ServiceBus, *, cpu: float = 2.0, gpus: dict[str, int] | None = None) -> None:
        self.bus = bus
        self.id = ids.new(ids.WORKER)
        self.total = Capacity(cpu, 8_192, gpus or {})
        self.containers: dict[str, ContainerState] = {}
        self.pools: dict[str, Pool] = {}
        self.placements: list[Placement] = []
        self.stops: list[StopContainers] = []
        self.leases: tuple[str, ...] = ()
        self.refuse = ""  # a reason
        self.silent = False
        self.ready_at_once = True
        self.forgetful = False  # accepts and starts nothing
        self.rounds: list[int] = []  # containers that failed to start together
        self.draining = False
        self.highest_term = 0
        self._stop_serving: Callable[[], object] | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._pullers: list[Puller] = []

    async def start(self) -> "PlayedWorker":
        """Serve orders and report each second."""
        endpoints = {
            subjects.worker(self.id, "place"): self._place,
            subjects.worker(self.id, "stop"): self._stop,
        }
        self._stop_serving = await self.bus.serve("worker", "0.0.1", endpoints)
        self._reporting = asyncio.create_task(self._report_for_ever())
        await self.bus.bucket(streams.WORKERS).put(self.id, coding.encode(self.state()))
        return self

    async def lose(self) -> None:
        """Fall silent as a killed worker does: no reports, no answers."""
        if self._reporting:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)
            self._reporting = None
        if self._stop_serving:
            await self._stop_serving()  # type: ignore[misc]
            self._stop_serving = None

    def state(self) -> WorkerState:
        """Return the report."""
        resources = [self.pools[one.pool].spec.resources for one in self.containers.values()]
        gpus = dict(self.total.gpus)
        for wanted in resources:
            for kind, count in wanted.gpus[:1]:
                gpus[kind] -= count
        free = Capacity(
            self.total.cpu - sum(one.cpu for one in resources),
            self.total.memory - sum(one.memory for one in resources),
            gpus,
        )
        capabilities = ("cpu", *(f"gpu-{kind}" for kind in self.total.gpus))
        return WorkerState(
            self.id, capabilities, {}, self.total, free, tuple(self.containers.values()), self.leases,
            "process", 1, "here", "1", self.draining,
        )  # fmt: skip

    def report(self) -> None:
        """Send the report now."""
        self.bus.publish(subjects.worker_state(self.id), coding.encode(self.state()))

    async def _report_for_ever(self) -> None:
        while True:
            with suppress(Disconnected):  # the server is away for a moment
                self.report()
            await asyncio.sleep(1.0)

    async def _place(self, asked: Message) -> bytes:
        placement = coding.decode(Placement, asked.data)
        self.placements.append(placement)
        if self.silent:
            await asyncio.sleep(1.0)
            raise RequestFailed("internal", "too late")
        if self.refuse:
            return coding.encode(PlacementAnswer(accepted=False, reason=self.refuse))
        if placement.term < self.highest_term:
            return coding.encode(PlacementAnswer(accepted=False, reason="an older term"))
        self.highest_term = placement.term
        self.pools[placement.pool.id] = placement.pool
        if self.forgetful:
            return coding.encode(PlacementAnswer(accepted=True))
        self.set(placement.container, placement.pool.id, "idle" if self.ready_at_once else "starting")
        return coding.encode(PlacementAnswer(accepted=True))

    async def _stop(self, asked: Message) -> bytes:
        order = coding.decode(StopContainers, asked.data)
        self.stops.append(order)
        for container in order.containers:
            self.containers.pop(container, None)
        self.report()
        return coding.encode(Done())

    def set(self, container: str, pool: str, state: str) -> None:
        """Bring a container into a state and report it."""
        placed = self.pools[pool]
        known = self.containers.get(container) or ContainerState(
            container, pool, state, 0.0, generation=placed.generation, superseded=placed.superseded
        )
        self.containers[container] = replace(known, state=state, since=time.time())
        self.report()

    def set_all(self, state: str) -> None:
        """Bring every container into a state and report it."""
        self.containers = {
            name: replace(one, state=state, since=time.time()) for name, one in self.containers.items()
        }
        self.report()

    async def fail_start(self, failure: bytes = b"", *, final: bool = False) -> None:
        """End every starting container as one whose module cannot be imported."""
        starting = self.starting
        if starting:
            self.rounds.append(len(starting))
        for one in starting:
            del self.containers[one.container]
            event = ContainerEvent(
                one.container, one.pool, "f", self.id, "failed", time.time(), "no module", {}, failure, final
            )
            await self.bus.store(subjects.event("main", "container", "ap-1"), coding.encode(event))
        self.report()

    @property
    def starting(self) -> list[ContainerState]:
        """The containers that are not ready."""
        return [one for one in self.containers.values() if one.state == "starting"]

    def running(self, pool: Pool) -> int:
        """Return how many containers of a pool there are."""
        return sum(one.pool == pool.id for one in self.containers.values())

    def take(self, pool: Pool, count: int) -> list[Delivery]:
        """Pull inputs of a pool and keep them; returns the list that they will come into."""
        taken: list[Delivery] = []
        puller = self.bus.pull(streams.pool_consumer(pool), taken.append)
        puller.want(count)
        self._pullers.append(puller)
        return taken

    async def close(self) -> None:
        """Stop everything."""
        await self.lose()
        for puller in self._pullers:
            await puller.close()
