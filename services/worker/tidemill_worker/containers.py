"""The containers of this worker, each in a task of its own from its placement to its end.

placed ──> started ──> ready ──> (pool gives it inputs) ──> ended ──> cleaned up
              └── failed: told in an event, with what its callers are to see
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tidemill import exception
from tidemill._bus.protocol import BusError, Disconnected
from tidemill._wire import coding, failure, subjects
from tidemill._wire.containers import Execute
from tidemill._wire.scheduling import ContainerEvent, ContainerState, Placement
from tidemill._wire.specs import Pool
from tidemill_worker import decisions, secrets
from tidemill_worker.attempts import Attempts
from tidemill_worker.capacity import Reservation, Room
from tidemill_worker.children import Children
from tidemill_worker.container import Container
from tidemill_worker.decisions import Exit, Killed
from tidemill_worker.gpus import Holder
from tidemill_worker.leases import Leases
from tidemill_worker.node import Node
from tidemill_worker.outputs import Outbox
from tidemill_worker.pools import PoolQueue
from tidemill_worker.runtime import Runtime
from tidemill_worker.tier import ForkError
from tidemill_worker.web_container import WebContainer

FINISH = 30.0  # seconds that running inputs get when a container is told to stop, unless the order says
EXIT_HOOKS = 30.0  # seconds for exit hooks after that
EVENT_TRIES, EVENT_PAUSE = 10, 1.0  # of an event that the broker does not take


# An image that cannot be made, a secret that was deleted: another try would fail as well.
_FINAL = (exception.ImageBuildError, secrets.Refused)


class StartFailed(Exception):
    """A container did not become ready.

    `final`: another try would fail as well. `cut_off`: the worker was, so that the function is not to blame.
    """

    def __init__(self, told: bytes, *, final: bool = False, cut_off: bool = False) -> None:
        super().__init__(failure.message_of(told))
        self.told = told
        self.final = final
        self.cut_off = cut_off


class Containers:
    """Every container here, and the queues of their pools."""

    def __init__(self, node: Node, room: Room, runtime: Runtime, children: Children, leases: Leases) -> None:
        self._node = node
        self._room = room
        self._runtime = runtime
        self._children = children
        self._leases = leases
        self.outbox = Outbox(node, leases)
        self._attempts = Attempts(node, leases)
        self._containers: dict[str, Container] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[str] = set()
        self._pools: dict[str, PoolQueue] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()
        runtime.tier.watch(self._on_excess)

    # --- orders

    def place(self, placement: Placement) -> str:
        """Take a container on; return why not, or an empty string. The same one twice is taken once."""
        if placement.container in self._containers:
            return ""
        reservation = self._room.reserve(placement.container, placement.pool, overcommit=placement.overcommit)
        if isinstance(reservation, str):
            return reservation
        pool = placement.pool
        kind = WebContainer if pool.spec.webs else Container
        container = kind(self._node, pool, placement.container, self._queue(pool))
        container.began[0] = min(placement.ordered or container.since, container.since)
        self._containers[container.id] = container
        self._none_left.clear()
        self._node.spawn(self._live(container, reservation), f"container {container.id}")
        self._node.on_change()
        return ""

    def stop(self, container_id: str, *, graceful: bool, finish: float = FINISH) -> None:
        """End a container, after what it runs or at once. One that is not here has ended.

        What it runs gets `finish` seconds.
        """
        container = self._containers.get(container_id)
        if container is None:
            return
        if container_id in self._starting or not (graceful or container.has_exit_hooks):
            self._kill(container, Killed.STOP)
        elif not graceful:
            self._node.spawn(self._interrupt(container), f"interrupt {container_id}")
        elif container_id not in self._stopping:
            self._stopping.add(container_id)
            self._node.spawn(self._stop(container, finish), f"stop {container_id}")

    def _stop_gracefully(self, container_id: str) -> None:
        self.stop(container_id, graceful=True)

    async def execute(self, order: Execute) -> None:
        """Start a process in a container; raises an `Error` if that cannot be."""
        container = self._containers.get(order.container)
        if container is None or container.ended.done():
            raise exception.NotFoundError(
                f"the container {order.container} does not run any more",
                hint="`tidemill container list` shows those that do",
            )
        await container.sessions.execute(order)

    def cancel(self, workspace: str, call: str, *, terminate: bool) -> None:
        """End everything of a call that is here, and remember to refuse what comes later."""
        self._node.cancelled.add((workspace, call))
        for held in self._leases.held.values():
            if (held.workspace, held.chunk.call) == (workspace, call):
                held.voided = True
        for queue in self._pools.values():
            queue.cancel(kill=terminate)

    def states(self) -> tuple[ContainerState, ...]:
        """Return the containers for the worker's report."""
        return tuple(
            ContainerState(
                one.id, one.pool.id, one.phase.value, one.since, one.pid,
                one.pool.generation, one.pool.superseded, self._room.gpus_of(one.id),
            )
            for one in self._containers.values()
        )  # fmt: skip

    @property
    def present(self) -> Mapping[str, Container]:
        """The containers that are here, by id."""
        return self._containers

    def _on_excess(self, container_id: str, told: str, is_final: bool) -> None:
        """Act on a container that went beyond a limit."""
        if (container := self._containers.get(container_id)) is not None:
            container.log.say(f"the container {told}" if is_final else told)
            if is_final:
                container.examine = lambda: told
                container.kill(Killed.EXCESS)

    def reconnected(self) -> None:
        """Let user code know that messages may have been missed."""
        for container in self._containers.values():
            container.reconnected()

    async def drain(self) -> None:
        """Let running inputs finish, hand back the rest, end all containers."""
        for queue in list(self._pools.values()):
            await queue.close()
        for container_id in list(self._containers):
            self.stop(container_id, graceful=True)
        await self._none_left.wait()

    async def kill_all(self) -> None:
        """End all containers at once, and hand back what they had."""
        for container in list(self._containers.values()):
            self._kill(container, Killed.STOP)
        await self._none_left.wait()

    # --- a container's life

    async def _live(self, container: Container, reservation: Reservation) -> None:
        """See one container through, whatever happens to it."""
        reason = ""
        self._node.metrics.containers.inc()
        try:
            await self._start(container, reservation)
            self._queue(container.pool).add(container)
            reason = _in_words(await container.ended)
        except StartFailed as error:
            await self._fail_start(container, error)
        finally:
            self._node.metrics.containers.dec()
            await self._clean_up(container, reason)

    async def _start(self, container: Container, reservation: Reservation) -> None:
        """Return when it is ready; `StartFailed` if it does not become so."""
        task = asyncio.ensure_future(self._become_ready(container, reservation))
        self._starting[container.id] = task
        try:
            await task
        except asyncio.CancelledError:
            if container.killed is None:  # it is the worker that ends
                raise
            raise StartFailed(failure.from_text("ExecutionError", container.killed.value)) from None
        finally:
            self._starting.pop(container.id, None)

    async def _become_ready(self, container: Container, reservation: Reservation) -> None:
        try:
            start = await self._runtime.start(container.id, reservation, container.log)
        except exception.Error as error:
            told = failure.from_text(_public_name(error), str(error), hint=error.hint)
            raise StartFailed(told, final=isinstance(error, _FINAL)) from error
        except (ForkError, BusError, OSError) as error:
            told = failure.from_text("ExecutionError", str(error))
            raise StartFailed(told, cut_off=isinstance(error, Disconnected)) from error
        except Exception as error:
            self._node.log.exception("a container could not be started", container=container.id)
            told = failure.from_text("InternalError", f"{type(error).__name__}: {error}")
            raise StartFailed(told) from error
        self._children.own.add(start.sockets.pid)
        container.examine = lambda: self._runtime.tier.verdict(container.id)
        await container.connect(start.sockets.runner, start.sockets.control, start.sockets.pid)
        container.began.append(container.began[1] + start.phases["image"])
        container.configure({**start.configuration, "began": container.began})
        if container.pool.spec.block_network and not self._runtime.tier.isolates:
            container.log.say("the network is not blocked: this worker's containers are plain processes")
        loading = await self._loading(container)
        ready = time.time()
        entered = ready - loading["enter"]
        moments = (*container.began, entered - loading["import"], entered, ready)
        self._node.records.ready(container.id, moments)
        placed = container.began[1] - container.began[0]
        self._tell_ready(container, {"place": placed, **start.phases, **loading})

    async def _loading(self, container: Container) -> dict[str, float]:
        """Return what the runner's phases took, when it is ready."""
        spec = container.pool.spec
        limit = decisions.startup_limit(spec)
        either: set[asyncio.Future[Any]] = {container.ready, container.ended}
        await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not container.ready.done():
            if not container.ended.done():
                message = f"the container was not ready within {limit:g} s"
                raise StartFailed(failure.from_text("FunctionTimeoutError", message))
            message = f"the container {_in_words(container.ended.result())} before it was ready"
            raise StartFailed(failure.from_text("ExecutionError", message))
        result = container.ready.result()
        if isinstance(result, bytes):
            raise StartFailed(result)
        return result

    def _tell_ready(self, container: Container, phases: dict[str, float]) -> None:
        for phase, seconds in phases.items():
            self._node.metrics.starts.labels(phase).observe(seconds)
        told = {phase: round(seconds, 6) for phase, seconds in phases.items()}
        self._node.log.info("container ready", container=container.id, pool=container.pool.id, **told)
        self._tell(container, "started", phases=told)

    async def _fail_start(self, container: Container, error: StartFailed) -> None:
        """Tell why it did not start, and end what there is of it."""
        told = error.told
        if container.killed is Killed.STOP:  # nothing is wrong: the user does not hear of it
            self._tell(container, "stopped", reason=container.killed.value)
        elif error.cut_off:
            self._tell(container, "stopped", reason=failure.message_of(told))
        else:
            if not container.pid:  # what a runner has to say, it says itself
                container.log.say(failure.message_of(told))
                container.log.flush()
            reason = failure.message_of(told)[:2_000]
            self._node.log.warning("container failed", container=container.id, reason=reason[:500])
            self._tell(container, "failed", reason=reason, failure=told, final=error.final)
        await self._kill_and_wait(container)

    async def _kill_and_wait(self, container: Container) -> None:
        if container.pid and not container.ended.done():
            container.kill(Killed.STARTUP)
            await container.ended

    async def _stop(self, container: Container, finish: float) -> None:
        """Let it finish, run its exit hooks, and see that it ends."""
        self._queue(container.pool).retire(container)
        with suppress(TimeoutError):
            async with asyncio.timeout(finish):
                await container.drained.wait()
        if container.drained.is_set():
            container.stop()
            await self._see_end(container)
        elif container.has_exit_hooks:
            await self._interrupt(container)
        else:
            container.kill(Killed.STOP)

    async def _interrupt(self, container: Container) -> None:
        """End it now, but let its exit hooks run."""
        self._queue(container.pool).remove(container)
        container.interrupt()
        await self._see_end(container)

    async def _see_end(self, container: Container) -> None:
        try:
            async with asyncio.timeout(EXIT_HOOKS):
                await asyncio.shield(container.ended)
        except TimeoutError:
            container.kill(Killed.STOP)

    def _kill(self, container: Container, why: Killed) -> None:
        self._queue(container.pool).remove(container)
        container.kill(why)
        if task := self._starting.get(container.id):
            task.cancel()

    async def _clean_up(self, container: Container, reason: str) -> None:
        """Leave nothing of a container that has ended: no process, no folder, no promise."""
        queue = self._queue(container.pool)
        if container.ended.done():
            queue.on_end(container, container.ended.result())
            self._node.metrics.ends.labels(_short(container.ended.result())).inc()
        try:
            if container.pid:
                await self._children.forget(container.pid)
                await self._sweep(container)
            await self._runtime.clean(container.id)
        except Exception:  # what it had is given to others all the same
            self._node.log.exception("something of a container is left behind", container=container.id)
        self._room.release(container.id)
        self._containers.pop(container.id, None)
        self._stopping.discard(container.id)
        if reason:
            self._tell(container, "stopped", reason=reason)
        self._node.on_change()
        if not any(one.pool.id == container.pool.id for one in self._containers.values()):
            self._pools.pop(container.pool.id, None)
            await queue.close()
        if not self._containers:
            self._none_left.set()

    async def _sweep(self, container: Container) -> None:
        """End what the container left behind, if its init did not live to do so."""
        if container.ended.done() and container.ended.result().status is None:
            count = await self._children.sweep()
            if count:
                self._node.metrics.orphans.inc(count)
                self._node.log.warning("orphans ended", container=container.id, processes=count)

    # --- its surroundings

    def _queue(self, pool: Pool) -> PoolQueue:
        queue = self._pools.get(pool.id)
        if queue is None:
            queue = self._pools[pool.id] = PoolQueue(
                self._node, pool, self._leases, self.outbox, self._attempts, self._stop_gracefully
            )
        return queue

    def _tell(self, container: Container, state: str, reason: str = "", **more: Any) -> None:
        """Publish an event of a container's life."""
        self._announce(container.id, container.pool, state, reason, **more)

    def tell_kept(self, holder: Holder, how: str) -> None:
        """Publish that a container which has ended left a GPU in use."""
        self._announce(holder.container, holder.pool, "kept_gpu", how)

    def _announce(self, container: str, pool: Pool, state: str, reason: str, **more: Any) -> None:
        event = ContainerEvent(
            container, pool.id, pool.spec.name, self._node.id, state, time.time(), reason, **more
        )
        subject = subjects.event(pool.workspace, "container", pool.app_id)
        self._node.spawn(self._publish(subject, event), f"event {container}")

    async def _publish(self, subject: str, event: ContainerEvent) -> None:
        data, msg_id = coding.encode(event), f"{event.container}.{event.state}"
        for _ in range(EVENT_TRIES):
            try:
                await self._node.bus.store(subject, data, msg_id=msg_id)
                return
            except BusError as error:
                self._node.log.warning("an event is not stored", container=event.container, error=str(error))
                await asyncio.sleep(EVENT_PAUSE)


def _public_name(error: exception.Error) -> str:
    """Return the name under which callers know an error."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == exception.__name__)


def _in_words(end: Exit) -> str:
    """Return how a container ended, as its event tells it."""
    if end.killed is not None:
        return f"was killed: {end.killed.value}"
    if end.exhausted:
        return end.exhausted
    return "was lost" if end.status is None else decisions.ending(end.status)


def _short(end: Exit) -> str:
    """Return how a container ended, as a label."""
    if end.killed is not None:
        return end.killed.name.lower()
    if end.exhausted:
        return "memory"
    return "lost" if end.status is None else "exit" if end.status == 0 else "crash"
