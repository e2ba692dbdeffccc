"""The bubblewrap tier, as the worker's runtime sees it.

launch ──> launcher ──> bubblewrap ──> template ── fork ──> container's first process
admit: disk ───────────────────────────────────────────────────┤
                                                               │ hello, by which its pid is seen
       control groups, network  <──────────────────────────────┘
   └── go ──> no capability, seccomp ──> ready ──> init

folder/<scratch of a template>/<container>/upper    what its containers wrote, if they have no disks
"""

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack

from tidemill._container import sandbox as inside
from tidemill._container import syscalls
from tidemill._wire import subjects
from tidemill._wire.specs import Resources
from tidemill_worker import allocator
from tidemill_worker.capacity import Reservation
from tidemill_worker.children import Children
from tidemill_worker.images import Image
from tidemill_worker.sandbox import handshake, layout, program
from tidemill_worker.sandbox.cgroups import Cgroups
from tidemill_worker.sandbox.disks import Disks
from tidemill_worker.sandbox.egress import PAUSE, Egress
from tidemill_worker.sandbox.foreign import ForeignFiles
from tidemill_worker.sandbox.ids import Ids
from tidemill_worker.sandbox.network import NoEgress
from tidemill_worker.sandbox.watching import Watch, Watched
from tidemill_worker.tier import HOME, Files, ForkError, Launch, Launched, Place, Report, Sockets, passed_on

HANDSHAKE = 30.0  # seconds that a container gets to say hello, and then to be ready
DISK = 16 * 1024  # MiB that a container may write, unless it says otherwise
_LAUNCHER = Path(__file__).with_name("launcher.py")
_MIB = 1 << 20


class Bubblewrap:
    """Containers in sandboxes. Made by `trying.open_tier`, which tries whether they hold."""

    name = "bubblewrap"
    isolates = True
    # Another user may not give a container its name from outside.
    makes_spares = os.getuid() == 0

    def __init__(
        self,
        children: Children,
        ids: Ids,
        cgroups: Cgroups,
        egress: Egress,
        disks: Disks | None,
        *,
        layer: Path,
        code: Path,
        folder: Path,
        tasks: int,
    ) -> None:
        self.unheld: Mapping[str, str] = {}
        self.note = ""
        self.egress = egress
        self._children = children
        self._ids = ids
        self._cgroups = cgroups
        self._disks = disks
        self._preparing: asyncio.TimerHandle | None = None
        self._layer = layer
        self._code = code
        self._folder = folder
        self._tasks = tasks
        self._numbers = itertools.count()
        self._files = ForeignFiles(children, ids, layer)
        self._watch = Watch(cgroups, self._files.size)
        self._scratch: dict[str, Path] = {}
        self._mounts: dict[str, int] = {}
        self._copies: dict[str, list[tuple[str, str]]] = {}
        self._names: dict[str, int] = {}  # of spares: the namespaces in which they have one

    @property
    def has_own_ids(self) -> bool:
        """Whether containers have ids that own nothing, and not the worker's."""
        return self._ids.is_range

    @property
    def has_disks(self) -> bool:
        """Whether containers have disks of limited size."""
        return self._disks is not None

    async def launch(self, launch: Launch) -> Launched:
        """Start it inside bubblewrap."""
        scratch = self._folder / f"sandbox-{next(self._numbers)}"
        scratch.mkdir(mode=0o700)
        plan = self._plan(launch, scratch)
        descriptor = os.memfd_create("plan")
        os.write(descriptor, json.dumps(plan).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            async with self._children.starting():
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-S", _LAUNCHER, self._layer, str(descriptor),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=launch.words or asyncio.subprocess.DEVNULL,
                    env={"PATH": os.environ.get("PATH", os.defpath)},
                    cwd="/",
                    pass_fds=(descriptor, *launch.descriptors),
                    start_new_session=True,
                )  # fmt: skip
                self._children.own.add(process.pid)
        finally:
            os.close(descriptor)
        return Launched(process, scratch, launch.blocked)

    def _plan(self, launch: Launch, scratch: Path) -> dict[str, Any]:
        code = self._code / subjects.workspace(launch.workspace)
        code.mkdir(parents=True, exist_ok=True)
        resolvers = () if launch.blocked else self.egress.resolvers
        what = layout.of(
            launch.image,
            layer=self._layer,
            code=code,
            resolvers=resolvers,
            web=launch.web,
            equipment=launch.equipment,
        )
        containers = inside.Plan(
            layers=(
                f"{inside.HOLD}/top",
                *(f"{inside.HOLD}/lower/{number}" for number in range(len(what.layers))),
            ),
            binds=tuple(target for _source, target in what.binds),
            program=program.of_containers(),
        )
        return {
            "ids": {"first": self._ids.first, "first_group": self._ids.first_group},
            "bubblewrap": self._ids.bubblewrap,
            "folders": what.folders, "links": what.links, "files": what.files,
            "binds": what.binds, "layers": what.layers, "devices": what.devices,
            "scratch": str(scratch),
            "environment": {**_environment(launch.image), **launch.environment},
            "program": program.of_templates().hex(),
            "inside": msgpack.packb(containers._asdict()).hex(),
            "command": [
                layout.python_of(launch.image), "-s", "-P", layout.BOOTSTRAP,
                "--sandboxed", *launch.arguments(layout.WEB),
            ],
        }  # fmt: skip

    async def admit(
        self, container: str, reservation: Reservation, launched: Launched, sockets: Sockets
    ) -> Sockets:
        """Shake hands with it; in between come its limits and its network."""
        resources = reservation.pool.spec.resources
        admitted = await self._shake_hands(container, resources, launched, sockets)
        self._look_after(container, admitted.pid, resources)
        return admitted

    async def prepare(self, spare: str, launched: Launched, sockets: Sockets) -> Sockets:
        """Do so with one that nobody needs yet."""
        return await self._shake_hands(spare, Resources(), launched, sockets, is_spare=True)

    def suits(self, container: str, reservation: Reservation) -> bool:
        """Return whether what cannot be changed any more is as it has it: its disk, and what lies on it."""
        disk = reservation.pool.spec.resources.ephemeral_disk or DISK
        return disk == DISK and container not in self._copies

    def adopt(self, spare: str, container: str, reservation: Reservation, sockets: Sockets) -> None:
        """Give a spare the limits and the name of a container; what it has is that container's now."""
        resources = reservation.pool.spec.resources
        name = self._names.pop(spare)
        try:
            syscalls.sethostname(container, name)
        finally:
            os.close(name)
        if self._cgroups.version:  # the last that can fail: nothing is the container's before
            self._cgroups.hand_over(spare, container, resources, self._tasks)
        self.egress.hand_over(spare, container)
        self._scratch[container] = self._scratch.pop(spare)
        if spare in self._mounts:
            self._mounts[container] = self._mounts.pop(spare)
        self._look_after(container, sockets.pid, resources)

    def _look_after(self, container: str, pid: int, resources: Resources) -> None:
        disk = resources.ephemeral_disk or DISK
        written = self._mounts.get(container, self._scratch[container] / "upper")
        self._watch.add(container, Watched(pid, resources.memory_limit, disk, written))

    async def _shake_hands(
        self,
        container: str,
        resources: Resources,
        launched: Launched,
        sockets: Sockets,
        *,
        is_spare: bool = False,
    ) -> Sockets:
        assert launched.scratch is not None
        control, disk = sockets.control, resources.ephemeral_disk or DISK
        self._scratch[container] = launched.scratch / container
        try:
            async with asyncio.timeout(HANDSHAKE):
                await self._give_disk(container, disk, control)
                pid = await handshake.hello(control)
                if is_spare:  # it waits for us, so that this is its pid and nobody else's
                    self._names[container] = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY)
                # The kernel takes its time for both, and the container meanwhile makes its root.
                _, network = await asyncio.gather(
                    self._limit(container, pid, resources), self._connect(container, pid, launched)
                )
                copies = self._copies.pop(container, [])
                handshake.send(control, {"network": network, "limits": self._limits(disk), "copies": copies})
                await handshake.expect(control, inside.READY)
        except TimeoutError as error:
            raise ForkError(f"the sandbox did not answer within {HANDSHAKE:g} s") from error
        except NoEgress as error:
            raise ForkError(
                f"this worker cannot connect containers to a network: {error}; "
                "a function that needs none can have block_network=True"
            ) from error
        control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        return Sockets(sockets.runner, control, pid)

    async def _give_disk(self, container: str, size: int, control: socket.socket) -> None:
        """Send a container the mount of a disk of its own, if there are such."""
        if self._disks is None:
            with suppress(BrokenPipeError):  # it has ended, which is seen by its hello
                control.send(inside.DISK)
            return
        making = asyncio.ensure_future(asyncio.to_thread(self._disks.give, size))
        try:
            self._mounts[container] = mount = await asyncio.shield(making)
        except (OSError, subprocess.SubprocessError) as error:
            raise ForkError(f"its disk cannot be made: {error}") from error
        except asyncio.CancelledError:
            making.add_done_callback(_close_result)
            raise
        with suppress(BrokenPipeError):
            socket.send_fds(control, [inside.DISK], [mount])
        loop = asyncio.get_running_loop()
        self._preparing = self._preparing or loop.call_later(PAUSE, self._prepare_disks)

    def _prepare_disks(self) -> None:
        self._preparing = None
        if self._disks is not None:
            asyncio.get_running_loop().run_in_executor(None, self._disks.prepare)

    async def _limit(self, container: str, pid: int, resources: Resources) -> None:
        if self._cgroups.version:
            await asyncio.to_thread(self._cgroups.add, container, pid, resources, self._tasks)

    async def _connect(self, container: str, pid: int, launched: Launched) -> dict[str, Any]:
        return {} if launched.blocked else await self.egress.give(container, pid)

    def _limits(self, disk: int) -> dict[str, int]:
        limits = {"RLIMIT_CORE": 0}
        if self._disks is None:
            limits["RLIMIT_FSIZE"] = disk * _MIB
        return limits if self._cgroups.version else {**limits, "RLIMIT_NPROC": self._tasks}

    async def settle(self, container: str, image: Image, files: Files) -> Place:
        """Return the image's working directory, or root's home; the container copies its files itself."""
        if files:
            home = self._code / files[0][1].relative_to(self._code).parts[0]
            self._copies[container] = [
                (f"{layout.CODE}/{folder.relative_to(home)}", place) for place, folder in files
            ]
        return Place(image.workdir or HOME, "/tmp")  # noqa: S108 - its own

    def inside(self, source: Path, workspace: str) -> str:
        """Return a folder of code as containers see it."""
        return f"{layout.CODE}/{source.relative_to(self._code / subjects.workspace(workspace))}"

    def verdict(self, container: str) -> str:
        """Return how the kernel ended a container for want of memory; empty if it did not."""
        memory = self._cgroups.memory(container)
        if memory is None or not memory.kills:
            return ""
        limit, peak = memory.limit // _MIB, -(-memory.peak // _MIB)
        return f"was killed at its memory limit of {limit} MiB (peak {peak} MiB)"

    def watch(self, report: Report) -> None:
        """Tell of containers that fill the disk, and of their processes that the kernel ended."""
        self._watch.start(report)

    async def clean(self, container: str) -> None:
        """Remove its limits, its network and what it wrote."""
        self._watch.discard(container)
        self._copies.pop(container, None)
        if (name := self._names.pop(container, -1)) >= 0:
            os.close(name)
        await self.egress.take_back(container)
        if self._cgroups.version:
            await asyncio.to_thread(self._cgroups.remove, container)
        if (mount := self._mounts.pop(container, -1)) >= 0:
            await asyncio.to_thread(os.close, mount)  # the last to do so unmounts it
        scratch = self._scratch.pop(container, None)
        if scratch is not None:
            await self._files.remove(scratch)

    async def forget(self, launched: Launched) -> None:
        """Remove the folder in which the files of its containers grew."""
        if launched.scratch is not None:
            await self._files.remove(launched.scratch)

    async def close(self) -> None:
        """Leave no group, interface, rule or file behind."""
        await self._watch.close()
        await self._files.close()
        if self._preparing is not None:
            self._preparing.cancel()
        await self.egress.close()
        if self._disks is not None:
            await asyncio.to_thread(self._disks.close)
        for mount in self._mounts.values():
            await asyncio.to_thread(os.close, mount)
        await asyncio.to_thread(self._cgroups.close)
        for scratch in self._folder.glob("sandbox-*"):
            await self._files.remove(scratch)
        self._ids.release()
        await self.egress.give_back(self._ids.slot)


def _close_result(made: "asyncio.Future[int]") -> None:
    if not made.cancelled() and not made.exception():
        os.close(made.result())


def _environment(image: Image) -> dict[str, str]:
    """Return what every program of an image finds in its environment."""
    return passed_on() | allocator.VARIABLES | layout.variables(image)
