"""How every service runs: start, serve until told to stop, drain, end.

    run(service)
      logging, event loop
      health answers         /healthz from the first moment on
      connection to NATS     tried until it is there, from the moment the gate is open
      streams and buckets    made if they are not there, or waited for by those who may not
      service.start()        subscribes, starts its loops in the task group, returns when it serves
      ... SIGTERM or SIGINT ...
      service.drain()        bounded; a second signal cuts it short
      exit 0                 or 1, when a task of the service crashed

A process that cannot go on ends, loudly and at once: whoever started it starts it again, and nothing is
lost, because work that was not acknowledged is delivered again.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol, TypeVar

from prometheus_client import Counter

from tidemill import exception
from tidemill._bus.protocol import BusError
from tidemill_common import identities, logging, metrics, streams
from tidemill_common.bus.nats import connect
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.health import Health, HealthServer
from tidemill_common.logging import Logger
from tidemill_common.settings import ServiceSettings

T = TypeVar("T")

FIRST_DELAY, LAST_DELAY = 0.02, 1.0  # seconds between tries to reach NATS
CLOSE_TIMEOUT = 5.0  # seconds for tasks to end after the drain, and for the connection to close


@dataclass(frozen=True, slots=True)
class Context:
    """What a service is given to work with, from its start to its end.

    `tasks` owns every loop of the service: they are cancelled after `drain()`, and the crash of any one
    ends the process. `stopping` is set when the service was told to stop. `health` answers the paths of
    the health server for a service that also has a server of its own.
    """

    bus: ServiceBus
    tasks: asyncio.TaskGroup
    log: Logger
    stopping: asyncio.Event
    metrics: metrics.Registry
    health: Health


class Service(Protocol):
    """One kind of process."""

    @property
    def name(self) -> str:
        """Its name in logs, metrics and `tidemill status`."""

    @property
    def settings(self) -> ServiceSettings:
        """Its settings."""

    async def start(self, context: Context) -> str | None:
        """Subscribe and start the loops in `context.tasks`; return when serving.

        Returns the address of the server it runs itself, if it does; else its health address is told.

        Raises:
            tidemill.exception.Error: it cannot start here; the message and the hint say why.
        """

    async def ready(self) -> str | None:
        """Return why no work should come here, or None. NATS is checked before this is asked."""

    async def drain(self) -> None:
        """Take nothing new; finish or hand back what is held. Called if `start` returned."""


def run(service: Service) -> None:
    """Run a service in this process until it is told to stop; exits with 0, or 1 after a crash."""
    import uvloop

    log = logging.configure(service.name, version("tidemill"), service.settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_Process(service, log).main())
    sys.exit(status)


class _Ended(Exception):
    """Ends the task group of a service that has drained."""


class _Process:
    """One run of one service."""

    def __init__(self, service: Service, log: Logger) -> None:
        self._service = service
        self._settings = service.settings
        self._log = log
        self._metrics = metrics.new_registry(service.name, version("tidemill"))
        self._health = Health(self._metrics, self._not_ready)
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._bus: ServiceBus | None = None
        self._serving = False

    async def main(self) -> int:
        """Run to the end and return the exit status."""
        with self._signals():
            server = HealthServer(self._health)
            try:
                address = await server.start(self._settings.health_host, self._settings.health_port)
            except OSError as error:
                self._log.error("cannot answer health checks", error=str(error))
                return 1
            try:
                return await self._connected_main(address)
            finally:
                await server.close()

    async def _connected_main(self, address: str) -> int:
        bus = await self._unless_stopped(self._connect())
        if bus is None:
            return 0
        try:
            if await self._unless_stopped(self._apply_streams(bus)) is None:
                return 0
            self._bus = bus
            self._watch_connection(bus)
            return await self._serve(bus, address)
        finally:
            with suppress(TimeoutError, BusError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await bus.close()

    async def _connect(self) -> ServiceBus:
        """Return a connection to NATS, however long that takes."""
        settings = self._settings
        if settings.gate_fd is not None:
            await _closed(settings.gate_fd)
        password = settings.nats_password.get_secret_value()
        return await self._persist(
            "cannot reach NATS yet",
            lambda: connect(
                settings.nats_url,
                user=settings.nats_user,
                password=password,
                name=f"tidemill {self._service.name}",
            ),
        )

    async def _apply_streams(self, bus: ServiceBus) -> bool:
        async def apply() -> bool:
            if self._service.name in identities.WITHOUT_STREAMS:
                await bus.last_in_bucket(streams.LEASES, "none")  # refused until it is there
            else:
                await streams.apply(bus, replicas=self._settings.replicas)
            return True

        return await self._persist("cannot make the streams yet", apply)

    async def _persist(self, complaint: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it works; complain when what is wrong changes."""
        delay, told = FIRST_DELAY, ""
        while True:
            try:
                return await attempt()
            except (BusError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    self._log.warning(complaint, error=told or type(error).__name__)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY)

    async def _serve(self, bus: ServiceBus, address: str) -> int:
        """Start the service, wait for the end, drain it. Returns the exit status."""
        status = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                context = Context(bus, tasks, self._log, self._stopping, self._metrics, self._health)
                await self._unless_stopped(self._start(context, address))
                await self._stopping.wait()
                if self._serving:
                    await self._drain()
                # A task that swallows its cancellation must not keep the process alive.
                asyncio.get_running_loop().call_later(2 * CLOSE_TIMEOUT, self._give_up)
                raise _Ended
        except* _Ended:
            self._log.info("stopped")
        except* Exception as group:
            status = 1
            self._tell_failure(group)
        return status

    def _tell_failure(self, group: ExceptionGroup) -> None:
        """Say what ended the service: a line if it knows why it cannot start, else where it happened."""
        reasons = [error for error in group.exceptions if isinstance(error, exception.Error)]
        if self._serving or len(reasons) < len(group.exceptions):
            self._log.error("crashed", exc_info=group)
            return
        for reason in reasons:
            self._log.error("cannot start", error=str(reason), hint=reason.hint)

    async def _start(self, context: Context, address: str) -> None:
        address = await self._service.start(context) or address
        self._serving = True
        gc.freeze()  # what start-up made stays: no collection needs to look at it again
        self._log.info("serving", address=address, pid=os.getpid())
        self._announce(address)

    def _announce(self, address: str) -> None:
        """Tell whoever started this process that it serves, and where."""
        if self._settings.ready_fd is None:
            return
        line = json.dumps({"name": self._service.name, "pid": os.getpid(), "address": address})
        with suppress(OSError):  # nobody listens any more
            os.write(self._settings.ready_fd, f"{line}\n".encode())
            os.close(self._settings.ready_fd)

    async def _drain(self) -> None:
        self._log.info("draining")
        drain = asyncio.create_task(self._service.drain())
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait(
                {drain, hurry}, timeout=self._settings.drain_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if drain.done():
                drain.result()
            else:
                self._log.warning("gave up draining", timeout=self._settings.drain_timeout)
        finally:
            drain.cancel()
            hurry.cancel()

    def _give_up(self) -> None:
        self._log.error("tasks did not end when they were cancelled")
        os._exit(1)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what `work` does, or None if the process was told to stop before it was done."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            stop.cancel()
            task.cancel()
            await asyncio.wait({task, stop}, timeout=CLOSE_TIMEOUT)

    async def _not_ready(self) -> str | None:
        if self._stopping.is_set():
            return "draining"
        if self._bus is None:
            return "not connected to NATS yet"
        if not self._serving:
            return "starting"
        try:
            await self._bus.account()
        except BusError as error:
            return f"JetStream does not answer: {error}"
        return await self._service.ready()

    def _watch_connection(self, bus: ServiceBus) -> None:
        lost = Counter(
            "tidemill_bus_disconnects", "Losses of the connection to NATS.", registry=self._metrics
        )

        def on_disconnect() -> None:
            lost.inc()
            if not self._stopping.is_set():
                self._log.warning("the connection to NATS is lost")

        def on_shut_out() -> None:
            self._log.error("NATS does not let this service in any more")
            self._stop()

        bus.on_shut_out = on_shut_out
        bus.on_disconnect(on_disconnect)
        bus.on_reconnect(lambda: self._log.info("connected to NATS again"))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        caught = (signal.SIGTERM, signal.SIGINT)
        for number in caught:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        """End the service; the second time, at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()


async def _closed(descriptor: int) -> None:
    """Return when the other end of a pipe was closed, or something was written to it."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
