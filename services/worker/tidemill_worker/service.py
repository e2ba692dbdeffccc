"""The worker: what it hears, and how its parts hang together.

tm.workers.<id>.place   orders of the scheduler's leader  -> a container, or a refusal
tm.workers.<id>.stop    the same                          -> containers end
tm.workers.<id>.execute users, through the leader         -> further processes in containers
tm.cancel.*.*           calls that were cancelled         -> their inputs end
inputs of its pools     pulled by `pools`                 -> containers -> outputs
"""

import asyncio
import fcntl
import os
import shutil
import socket
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from tidemill._bus.protocol import Message
from tidemill._container.processes import become_subreaper
from tidemill._wire import coding, ids, subjects
from tidemill._wire.containers import Execute
from tidemill._wire.control import Done
from tidemill._wire.scheduling import Cancelled, Placement, PlacementAnswer, StopContainers, WorkerState
from tidemill_common.records import Recorder
from tidemill_common.requests import Endpoints
from tidemill_common.service import Context
from tidemill_worker import allocator, capacity, runtime_layer
from tidemill_worker.children import Children
from tidemill_worker.containers import Containers
from tidemill_worker.environments import Environments
from tidemill_worker.hardware import Hardware
from tidemill_worker.images import Images
from tidemill_worker.interpreters import Interpreters
from tidemill_worker.jails import Jail
from tidemill_worker.layer_scripts import LayerScripts
from tidemill_worker.leases import Leases
from tidemill_worker.lending import Lending
from tidemill_worker.metrics import Metrics
from tidemill_worker.node import Node
from tidemill_worker.records import Records
from tidemill_worker.reporting import Reporter
from tidemill_worker.resolutions import Resolutions
from tidemill_worker.roots import Roots
from tidemill_worker.runtime import Runtime
from tidemill_worker.sandbox.opening import open_tier
from tidemill_worker.settings import Settings
from tidemill_worker.snapshots import Snapshots
from tidemill_worker.sources import Sources
from tidemill_worker.spares import Spares
from tidemill_worker.templates import Templates
from tidemill_worker.uv import Uv

VERSION = version("tidemill")  # read from a file: not once for every report

SNAPSHOT_SHARE = 4  # part of what containers may take of the memory that snapshots may take together
SETTLE = 2.0  # seconds for the last outputs to be stored and their inputs acknowledged
HURRY = 5.0  # seconds before the end of the drain at which what still runs is ended


class Worker:
    """One worker of this machine. Its id is new each time it starts."""

    name = "worker"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.id = ids.new(ids.WORKER)
        self._draining = False
        self._making_layer = asyncio.Lock()
        self._term = 0  # of the newest leader that gave an order

    async def start(self, context: Context) -> None:
        """Prepare the machine, begin to listen and to report."""
        allocator.keep_freed_memory()
        become_subreaper()
        folder = self._own_folder()
        layer = await asyncio.to_thread(runtime_layer.make, self.settings.data_dir / "runtime")
        metrics = Metrics(context.metrics)
        self._recorder = Recorder(context.bus, self.id, context.log, context.metrics)
        records = Records(self._recorder)
        self._node = node = Node(self.id, context.bus, context.log, metrics, context.tasks, records)
        self._hardware = await Hardware.find(self.settings, context.log, metrics)
        self._room = capacity.room(self.settings, self._hardware.gpus)
        self._leases = Leases(node)
        self._children = Children()
        uv = Uv(self._children, self.settings.data_dir / "uv")
        self._interpreters = Interpreters(uv)
        code = self.settings.data_dir / "sources"
        self._tier = tier = await open_tier(
            self.settings, self._children,
            layer=layer, code=code, folder=folder, memory=self._room.total.memory,
        )  # fmt: skip
        builds_roots = tier.isolates and os.getuid() == 0
        self._images = Images(
            self.settings.data_dir / "images",
            node,
            Environments(uv, Resolutions(node), isolated=tier.isolates),
            self._interpreters,
            self._root_builder(uv, layer) if builds_roots else None,
            budget=self.settings.worker_image_space << 20,
        )
        self._spares = Spares(node, self._children, tier)
        self._templates = Templates(node, self._children, tier, self._spares, self._web_layer)
        sources = Sources(code, context.bus, self._children)
        memory = self._room.total.memory // SNAPSHOT_SHARE
        self._snapshots = Snapshots(node, self._children, tier, self._templates, self._spares, memory)
        runtime = Runtime(
            node, self._images, sources, self._templates, self._snapshots, tier, self._hardware.driver
        )
        self._containers = Containers(node, self._room, runtime, self._children, self._leases)
        self._reporter = Reporter(node, self.state, self._leases)
        node.on_change = self._reporter.changed
        if not tier.isolates:
            context.log.warning(
                "user code is not isolated from this machine", runtime=tier.name, why=tier.note
            )
        await self._listen(context)
        context.tasks.create_task(self._leases.renew(), name="renew leases")
        context.tasks.create_task(self._reporter.run(), name="report")
        context.tasks.create_task(self._snapshots.run(), name="end unused templates")
        lending = Lending(self._room, lambda: self._containers.present, node.on_change)
        context.tasks.create_task(lending.run(), name="lend cores")
        self._hardware.start(context.tasks, node.on_change, self._containers.tell_kept)
        context.tasks.create_task(records.watch(self._containers.present), name="watch inputs")
        node.spawn(self._discover(), "discover interpreters")

    async def ready(self) -> str | None:
        """Return why no container can be started here, or None."""
        return None

    async def drain(self) -> None:
        """Take no more, let running inputs finish, hand back the rest, leave nothing behind."""
        self._draining = True
        self._reporter.tell()
        patience = max(1.0, self.settings.drain_timeout - HURRY)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._containers.drain()
                    await self._node.web.drain()
            await self._containers.kill_all()
            await self._settle()
        finally:
            await self._images.close()
            await self._spares.close()
            await self._snapshots.close()
            await self._templates.close()
            await self._tier.close()
            await self._children.sweep()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock_path.unlink(missing_ok=True)
            self._node.deadlines.close()
            await self._recorder.close()
            await self._reporter.say_goodbye()
            self._hardware.close()  # last: a driver that hangs may not let go

    async def _settle(self) -> None:
        """See to it that no input which has run here runs elsewhere again, because nobody knows that."""
        self._containers.outbox.hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE):
                await self._leases.drain()

    def state(self) -> WorkerState:
        """Return what the worker reports of itself."""
        settings = self.settings
        labels = {f"python-{known}": "yes" for known in self._interpreters.versions}
        placed = {"region": settings.worker_region, "cloud": settings.worker_cloud}
        return WorkerState(
            worker=self.id,
            capabilities=capacity.capabilities(self._room.total),
            labels={**labels, **{name: at for name, at in placed.items() if at}, **settings.worker_labels},
            total=self._room.total,
            free=self._room.free,
            containers=self._containers.states(),
            leases=self._leases.reported(),
            runtime=self._tier.name,
            pid=os.getpid(),
            host=socket.gethostname(),
            version=VERSION,
            draining=self._draining,
            unheld=dict(self._tier.unheld),
            note=self._tier.note,
            gpus=self._hardware.gpus.states(),
            driver=self._hardware.version,
        )

    # --- what it hears

    async def _listen(self, context: Context) -> None:
        endpoints = Endpoints(context.log, context.metrics)
        await context.bus.subscribe(subjects.ALL_CANCELS, self._on_cancelled)
        await self._node.web.listen()
        await self._containers.outbox.listen()
        await context.bus.serve(
            "tidemill-worker",
            VERSION,
            {
                subjects.worker(self.id, "place"): endpoints.internal("place", Placement, self._place),
                subjects.worker(self.id, "stop"): endpoints.internal("stop", StopContainers, self._stop),
                subjects.worker(self.id, "execute"): endpoints.internal("execute", Execute, self._execute),
            },
            metadata={"worker": self.id},
        )
        context.bus.on_reconnect(self._on_reconnect)

    async def _place(self, placement: Placement) -> PlacementAnswer:
        reason = self._refusal(placement)
        if not reason:
            reason = self._containers.place(placement)
        self._node.metrics.placements.labels("refused" if reason else "accepted").inc()
        return PlacementAnswer(accepted=not reason, reason=reason)

    def _refusal(self, placement: Placement) -> str:
        if not self._is_current(placement.term):
            return f"term {placement.term} is over"
        if self._draining:
            return "the worker is stopping"
        return ""

    async def _stop(self, order: StopContainers) -> Done:
        if self._is_current(order.term):
            for container in order.containers:
                self._containers.stop(container, graceful=order.graceful, finish=order.finish)
        return Done()

    async def _execute(self, order: Execute) -> Done:
        await self._containers.execute(order)
        return Done()

    def _is_current(self, term: int) -> bool:
        """Return whether an order is the newest leader's; one of an older leader is out of date."""
        self._term = max(self._term, term)
        return term == self._term

    def _on_cancelled(self, message: Message) -> None:
        try:
            told = coding.decode(Cancelled, message.data)
        except ValueError as error:
            self._node.log.warning("a cancellation cannot be read", error=str(error))
            return
        self._containers.cancel(told.workspace, told.call, terminate=told.terminate_containers)

    def _on_reconnect(self) -> None:
        self._reporter.tell()
        self._containers.reconnected()

    async def _web_layer(self) -> Path:
        async with self._making_layer:
            return await asyncio.to_thread(runtime_layer.make_web, self.settings.data_dir / "runtime")

    async def _discover(self) -> None:
        await self._interpreters.discover()
        self._reporter.changed()

    def _root_builder(self, uv: Uv, layer: Path) -> Roots:
        """Return what makes images with a file system of their own."""
        folder, mirror = self.settings.data_dir / "builds", self.settings.worker_debian_mirror
        jail = Jail(self._children, folder / "store", self.settings.worker_ids)
        scripts = LayerScripts(folder, jail.cache, uv, self._interpreters, layer, mirror=mirror)
        return Roots(jail, scripts, mirror=mirror)

    # --- its place on the machine

    def _own_folder(self) -> Path:
        """Make the folder for containers' private ones; remove those of workers that are dead.

        A live worker holds a lock on its own, which the kernel takes back whatever becomes of it.
        """
        parent = self.settings.data_dir / "containers"
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for lock in parent.glob("*.lock"):
            if not _is_locked(lock):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
        self._folder = parent / self.id
        self._lock_path = self._folder.with_suffix(".lock")
        self._lock = self._lock_path.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._folder.mkdir(mode=0o700)
        return self._folder


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
