"""A bus with everything on it that a test of the scheduler needs, and its end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import waiting
from played_parts import BOUND, Caller, PlayedWorker, publish_pool, until
from running_scheduler import RunningScheduler

from tidemill._bus.protocol import PubAck, Stored
from tidemill._wire import subjects
from tidemill._wire.specs import Pool
from tidemill_common.bus.protocol import ConsumerSpec, Delivery, Puller, ServiceBus

Connect = Callable[[], Awaitable[ServiceBus]]


class Parts:
    """The parts of one test, on one bus; each has a connection of its own."""

    def __init__(
        self, bus: ServiceBus, connect: Connect, restart: Callable[[float], Awaitable[float]] | None
    ) -> None:
        self.bus = bus
        self._connect = connect
        self._restart = restart
        self._workers: list[PlayedWorker] = []
        self._schedulers: list[RunningScheduler] = []
        self._buses = [bus]

    async def connect(self) -> ServiceBus:
        """Return a new connection."""
        bus = await self._connect()
        self._buses.append(bus)
        return bus

    async def scheduler(self, *, leads: bool = True, **settings: Any) -> RunningScheduler:
        """Start a replica; with `leads` return when it is the leader."""
        scheduler = await RunningScheduler(await self.connect(), **settings).start()
        self._schedulers.append(scheduler)
        return await scheduler.lead() if leads else scheduler

    async def dying_scheduler(self, subject: str) -> "DyingScheduler":
        """Start a replica that dies right after its first publish on a subject that begins so."""
        scheduler = DyingScheduler(await self.connect(), subject)
        await scheduler.start()
        return scheduler

    async def worker(self, cpu: float = 2.0, gpus: dict[str, int] | None = None) -> PlayedWorker:
        """Start a worker that every scheduler has heard of."""
        worker = await PlayedWorker(await self.connect(), cpu=cpu, gpus=gpus).start()
        self._workers.append(worker)
        await worker.bus.flush()
        for scheduler in self._schedulers:
            await until(lambda one=scheduler: one.knows(worker.id) or one.ended, "a known worker")
        return worker

    async def caller(self, pool: Pool, reply: str = "") -> Caller:
        """Publish a pool and return a caller of it."""
        await publish_pool(self.bus, pool)
        return await Caller(await self.connect(), pool, reply).start()

    async def known(self, pool: Pool) -> None:
        """Return when every replica has seen a pool: of one that goes before, nobody knows that it went."""
        for scheduler in self._schedulers:
            await until(lambda one=scheduler: one.knows_pool(pool.id) or one.ended, "a known pool")

    async def stored(self, stream: str, subject: str) -> Stored:
        """Return the message on a subject, as soon as it is there."""
        stored: Stored = await waiting.until(lambda: self.bus.last(stream, subject), BOUND)
        return stored

    async def empty(self, pool: Pool) -> None:
        """Return when a pool's queue holds nothing."""

        async def is_empty() -> bool:
            return not [one async for one in self.bus.read(pool.stream, subjects.pool_inputs(pool.prefix))]

        await waiting.until(is_empty, BOUND)

    async def restart_broker(self, *, down: float = 0.0) -> float:
        """Kill the server, start it again `down` seconds later; return when, once connected again."""
        assert self._restart is not None
        back = asyncio.Event()
        undo = self.bus.on_reconnect(back.set)
        begun = await self._restart(down)
        await asyncio.wait_for(back.wait(), BOUND)
        undo()
        return begun

    async def close(self) -> None:
        """End everything."""
        for worker in self._workers:
            await worker.close()
        for scheduler in self._schedulers:
            if not scheduler.ended:
                await scheduler.stop()
        for bus in reversed(self._buses):
            await bus.close()


class DyingBus:
    """A service's bus whose process dies when it has stored a message on a certain subject."""

    def __init__(self, bus: ServiceBus, subject: str, die: Callable[[], None]) -> None:
        self._bus = bus
        self._subject = subject
        self._die = die
        self.leases: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    def pull(self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]) -> Puller:
        """Remember what is held at the time of death."""

        def remember(delivery: Delivery) -> None:
            self.leases.append(delivery.ack_subject)
            on_delivery(delivery)

        return self._bus.pull(spec, remember)

    def store(
        self, subject: str, data: bytes, *, msg_id: str = "", headers: Mapping[str, str] | None = None
    ) -> asyncio.Future[PubAck]:
        """Store; die with the answer in hand and tell nobody."""
        stored = self._bus.store(subject, data, msg_id=msg_id, headers=headers)
        if not subject.startswith(self._subject):
            return stored
        never: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
        stored.add_done_callback(lambda _: self._die())
        return never


class DyingScheduler:
    """A replica on a `DyingBus`."""

    def __init__(self, bus: ServiceBus, subject: str) -> None:
        self._dying = DyingBus(bus, subject, self._die)
        self._scheduler = RunningScheduler(self._dying)  # type: ignore[arg-type]
        self._death: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when it serves."""
        await self._scheduler.start()

    def _die(self) -> None:
        self._death = asyncio.ensure_future(self._scheduler.kill())

    @property
    def dead(self) -> bool:
        """Whether it died."""
        return self._death is not None and self._death.done()

    @property
    def leases(self) -> list[str]:
        """The ack subjects of what it was given."""
        return self._dying.leases
