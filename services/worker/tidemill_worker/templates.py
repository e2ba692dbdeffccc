"""Templates: one warm Python per workspace, image and network mode, that containers are forked from.

A template is started at the first sight of its image and kept while it is used. It holds no user code
and no secrets, and gets nothing of this worker's environment but what a program needs to find its way.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import IO, Any

from tidemill._container import sockets
from tidemill._container.frames import FromTemplate, ToTemplate
from tidemill_worker import decisions
from tidemill_worker.capacity import Reservation
from tidemill_worker.children import Children
from tidemill_worker.driver import NOTHING, Equipment
from tidemill_worker.framing import Frame, FrameProtocol
from tidemill_worker.images import Image
from tidemill_worker.node import Node
from tidemill_worker.spares import Spares
from tidemill_worker.tier import ForkError, Launch, Launched, Sockets, Tier

START_TIMEOUT = 30.0  # seconds until a template that does not answer is given up, or a fork of it
END_TIMEOUT = 1.0  # seconds for a template to end by itself
MAX_TEMPLATES = 32
_LAST_WORDS = 4096  # bytes of what a template said that its failure tells

_MEASURES = ("import", "enter", "memory")

# Workspace, image, what it is made of, whether the network is blocked, for the web.
Key = tuple[str, str, tuple[int, ...], bool, bool]


class NoSnapshot(Exception):
    """A template says why it cannot hold user code; with `final` another one could not either."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


class Template:
    """One running template. `report` is what it says of the snapshot that it is."""

    def __init__(self, launched: Launched, sock: socket.socket, words: IO[bytes]) -> None:
        loop = asyncio.get_running_loop()
        self.launched = launched
        self.process = launched.process
        self.used = loop.time()
        self.is_gone = False
        self.report: dict[str, float] = {}
        self.on_gone: Callable[[], None] = _ignore
        self._words = words  # what it writes to its standard error
        self._sending = sock.dup()
        self._sock = sock
        self._is_open = False
        self._ready: asyncio.Future[None] = loop.create_future()
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._protocol = FrameProtocol(self._on_frame, self._on_lost)

    async def open(self, limit: float = START_TIMEOUT, order: tuple[Any, ...] = ()) -> None:
        """Return when it is ready, within `limit` seconds. `order` is what it is to do before.

        Raises:
            NoSnapshot: it refuses to do so.
            ForkError: it did not start.
        """
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._protocol, sock=self._sock)
        self._is_open = True
        if order:
            self._protocol.send(order)
        try:
            async with asyncio.timeout(limit):
                await self._ready
        except TimeoutError as error:
            raise ForkError(f"the image's Python did not start within {limit:.0f} s") from error

    async def fork(self, container: str, *, ahead: bool = False) -> Sockets:
        """Return a new container, made `ahead` of its need where all else goes first; `ForkError` if not."""
        ours_runner, its_runner = socket.socketpair()
        ours_control, its_control = control_pair()
        self.used = asyncio.get_running_loop().time()
        answer = self._forks[container] = asyncio.get_running_loop().create_future()
        try:
            frame = sockets.pack((ToTemplate.FORK, container, ahead))
            await self._send(frame, [its_runner.fileno(), its_control.fileno()])
            async with asyncio.timeout(START_TIMEOUT):
                pid = await answer
        except BaseException as error:
            ours_runner.close()
            ours_control.close()
            if isinstance(error, OSError | TimeoutError):
                raise ForkError(f"no container could be forked: {type(error).__name__} {error}") from error
            raise
        finally:
            self._forks.pop(container, None)
            its_runner.close()
            its_control.close()
        return Sockets(ours_runner, ours_control, pid)

    async def _send(self, frame: bytes, descriptors: list[int]) -> None:
        """Send a request with its descriptors, which travel with the first byte."""
        sent = 0
        while sent < len(frame):
            try:
                sent += socket.send_fds(self._sending, [frame[sent:]], [] if sent else descriptors)
            except BlockingIOError:
                await asyncio.sleep(0.001)

    def close(self) -> None:
        """End it. Its containers go on."""
        if self._is_open:
            self._protocol.close()
        elif not self.is_gone:
            self._sock.close()
            self._ready.cancel()
            self._on_lost()

    async def end(self) -> None:
        """End it, by force if it must be, with its containers."""
        self.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT):
                await self.process.wait()
        if self.process.returncode is None:  # else its number may be another's by now
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    def _on_frame(self, frame: Frame) -> None:
        match frame:
            case [FromTemplate.READY, _pid, report]:
                self.report = measures(report)
                self._ready.set_result(None)
            case [FromTemplate.REFUSED, reason, final]:
                self._ready.set_exception(NoSnapshot(reason, final=final))
            case [FromTemplate.FORKED, container, pid] if container in self._forks:
                self._forks[container].set_result(pid)
            case [FromTemplate.FAILED, container, message] if container in self._forks:
                self._forks[container].set_exception(ForkError(message))

    def _on_lost(self) -> None:
        if self.is_gone:
            return
        self.is_gone = True
        self._sending.close()
        gone = ForkError(f"the image's Python ended {self._last_words()}".rstrip())
        self._words.close()
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._forks.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(gone)
        self.on_gone()

    def _last_words(self) -> str:
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _LAST_WORDS))
        return self._words.read().decode(errors="replace")


class Templates:
    """All templates of this worker, by image and network mode."""

    def __init__(
        self,
        node: Node,
        children: Children,
        tier: Tier,
        spares: Spares,
        web_layer: Callable[[], Awaitable[Path]],
    ) -> None:
        """`web_layer` makes what web functions find beside what all containers run on."""
        self._node = node
        self._children = children
        self._tier = tier
        self._spares = spares
        self.web_layer = web_layer
        self._tasks: dict[Key, asyncio.Task[Template]] = {}

    async def fork(self, image: Image, container: str, reservation: Reservation) -> Sockets:
        """Return a new container of an image."""
        pool = reservation.pool
        key = (pool.workspace, image.key, image.made_of(), pool.spec.block_network, pool.has_web)
        template = await self._get(image, key)
        return await self._spares.container(template, container, reservation)

    async def start_alone(
        self,
        image: Image,
        container: str,
        reservation: Reservation,
        environment: Mapping[str, str],
        workdir: str,
        equipment: Equipment = NOTHING,
    ) -> Sockets:
        """Return a new container with an interpreter of its own, for what must be there before it."""
        pool = reservation.pool
        web = await self.web_layer() if pool.has_web else None
        ours_runner, its_runner = socket.socketpair()
        ours_control, its_control = control_pair()
        fds = (its_runner.fileno(), its_control.fileno())
        launch = Launch(
            image, pool.workspace, fds, kind="--single", id=container, blocked=pool.spec.block_network,
            environment=environment, workdir=workdir, web=web, equipment=equipment,
        )  # fmt: skip
        try:
            launched = await self._tier.launch(launch)
        except OSError as error:
            ours_runner.close()
            ours_control.close()
            raise ForkError(f"no container could be started: {error}") from error
        finally:
            its_runner.close()
            its_control.close()
        process = launched.process
        self._children.awaited.add(process.pid)
        self._node.spawn(self.reap(launched), f"reap {container}")
        sockets = Sockets(ours_runner, ours_control, process.pid)
        return await self._spares.admit(container, reservation, launched, sockets)

    async def _get(self, image: Image, key: Key) -> Template:
        task = self._tasks.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result().is_gone)):
            start = self._start(image, key)
            task = self._tasks[key] = asyncio.create_task(start, name=f"template {image.key}")
            self.drop_unused()
        return await asyncio.shield(task)

    async def _start(self, image: Image, key: Key) -> Template:
        workspace, _, _, blocked, for_web = key
        web = await self.web_layer() if for_web else None
        began = time.perf_counter()
        ours, its = socket.socketpair()
        words = tempfile.TemporaryFile()  # noqa: SIM115 - the template closes it
        try:
            launched = await self._tier.launch(
                Launch(image, workspace, (its.fileno(),), blocked=blocked, web=web, words=words)
            )
        except OSError as error:
            ours.close()
            words.close()
            raise ForkError(f"the image's Python cannot be started: {error}") from error
        finally:
            its.close()
        process = launched.process
        template = Template(launched, ours, words)
        self._node.spawn(self.reap(launched), f"reap template {image.key}")
        try:
            await template.open()
        except BaseException:
            template.close()
            with suppress(ProcessLookupError):
                process.kill()
            raise
        seconds = time.perf_counter() - began
        self._node.metrics.starts.labels("template").observe(seconds)
        self._node.log.info("template started", image=image.key, pid=process.pid, seconds=round(seconds, 4))
        return template

    async def reap(self, launched: Launched) -> None:
        """Wait for the end of a process that the tier has launched, and forget it."""
        process = launched.process
        await process.wait()
        self._children.own.discard(process.pid)
        self._children.awaited.discard(process.pid)
        await self._tier.forget(launched)

    def drop_unused(self) -> None:
        """End templates that nobody used for long, and the least used beyond the limit."""
        known = {
            key: (task.result().used, 0)
            for key, task in self._tasks.items()
            if task.done() and not task.cancelled() and not task.exception()
        }
        for key in decisions.superfluous(known, asyncio.get_running_loop().time(), most=MAX_TEMPLATES):
            self._tasks.pop(key).result().close()

    async def close(self) -> None:
        """End all templates."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        for template in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(template, Template):
                await template.end()


def _ignore() -> None:
    """Do nothing."""


def measures(report: Mapping[str, Any]) -> dict[str, float]:
    """Return what a template says of the snapshot that it is; `ValueError` for what user code made up."""
    found = {name: float(report.get(name, 0)) for name in _MEASURES}
    if not all(0 <= value < inf for value in found.values()):
        raise ValueError("a snapshot cannot take that long, or be that large")
    return found


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Return a pair of sockets of which the first sees who writes to the other."""
    ours, its = socket.socketpair()
    if sys.platform == "linux":
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, its
