"""Templates: one warm Python per workspace, image and network mode, that containers are forked from.

A template is started at the first sight of its image and kept while it is used. It holds no user code
and no secrets, and gets nothing of this worker's environment but what a program needs to find its way.
"""

import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tidemill._container import sockets
from tidemill._container.frames import FromTemplate, ToTemplate
from tidemill._wire.specs import Pool
from tidemill_worker import allocator
from tidemill_worker.children import Children
from tidemill_worker.framing import Frame, FrameProtocol
from tidemill_worker.images import Image
from tidemill_worker.node import Node

START_TIMEOUT = 30.0  # seconds until a template that does not answer is given up
FORK_TIMEOUT = 10.0
UNUSED = 600.0  # seconds after which a template without containers ends
MAX_TEMPLATES = 32
_LAST_WORDS = 4096  # bytes of what a template said that its failure tells

# What containers get of the worker's environment: nothing that tells a secret.
_PASSED_ON = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "USER", "LOGNAME", "HOSTNAME",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip


Key = tuple[str, str, bool, bool]  # workspace, image, whether the network is blocked, for the web


class ForkError(Exception):
    """A template could not make a container."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """The worker's ends of a new container's two sockets, and the pid of its init."""

    runner: socket.socket
    control: socket.socket
    pid: int


class Template:
    """One running template."""

    def __init__(self, process: asyncio.subprocess.Process, sock: socket.socket, words: IO[bytes]) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.used = loop.time()
        self.is_gone = False
        self._words = words  # what it writes to its standard error
        self._sending = sock.dup()
        self._sock = sock
        self._ready: asyncio.Future[None] = loop.create_future()
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._protocol = FrameProtocol(self._on_frame, self._on_lost)

    async def open(self) -> None:
        """Return when it is ready."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._protocol, sock=self._sock)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._ready
        except TimeoutError as error:
            raise ForkError(f"the image's Python did not start within {START_TIMEOUT:.0f} s") from error

    async def fork(self, container: str, environment: Mapping[str, str], workdir: str) -> Sockets:
        """Return a new container; `ForkError` if it cannot be made."""
        ours_runner, its_runner = socket.socketpair()
        ours_control, its_control = socket.socketpair()
        self.used = asyncio.get_running_loop().time()
        answer = self._forks[container] = asyncio.get_running_loop().create_future()
        try:
            frame = sockets.pack((ToTemplate.FORK, container, dict(environment), workdir))
            await self._send(frame, [its_runner.fileno(), its_control.fileno()])
            async with asyncio.timeout(FORK_TIMEOUT):
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
        self._protocol.close()

    def _on_frame(self, frame: Frame) -> None:
        match frame:
            case [FromTemplate.READY, _pid]:
                self._ready.set_result(None)
            case [FromTemplate.FORKED, container, pid] if container in self._forks:
                self._forks[container].set_result(pid)
            case [FromTemplate.FAILED, container, message] if container in self._forks:
                self._forks[container].set_exception(ForkError(message))

    def _on_lost(self) -> None:
        self.is_gone = True
        self._sending.close()
        gone = ForkError(f"the image's Python ended {self._last_words()}".rstrip())
        self._words.close()
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._forks.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(gone)

    def _last_words(self) -> str:
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _LAST_WORDS))
        return self._words.read().decode(errors="replace")


class Templates:
    """All templates of this worker, by image and network mode."""

    def __init__(
        self, node: Node, children: Children, layer: Path, web_layer: Callable[[], Awaitable[Path]]
    ) -> None:
        """`layer` is what containers run on, `web_layer` makes what web functions find beside it."""
        self._node = node
        self._children = children
        self._web_layer = web_layer
        self._bootstrap = layer / "tidemill" / "_container" / "bootstrap.py"
        self._tasks: dict[Key, asyncio.Task[Template]] = {}

    async def fork(
        self, image: Image, pool: Pool, *, container: str, environment: Mapping[str, str]
    ) -> Sockets:
        """Return a new container of an image."""
        key = pool.workspace, image.key, pool.spec.block_network, pool.has_web
        template = await self._get(image, key)
        return await template.fork(container, environment, "")

    async def start_alone(
        self, image: Image, pool: Pool, *, container: str, environment: Mapping[str, str], workdir: str
    ) -> Sockets:
        """Return a new container with an interpreter of its own, for variables that must be there first."""
        ours_runner, its_runner = socket.socketpair()
        ours_control, its_control = socket.socketpair()
        fds = (its_runner.fileno(), its_control.fileno())
        try:
            process = await self._spawn(
                image,
                ("--single", *await self._options(pool.has_web), *map(str, fds), container),
                fds,
                environment,
                workdir,
            )
        except OSError as error:
            ours_runner.close()
            ours_control.close()
            raise ForkError(f"no container could be started: {error}") from error
        finally:
            its_runner.close()
            its_control.close()
        self._children.awaited.add(process.pid)
        self._node.spawn(self._reap(process), f"reap {container}")
        return Sockets(ours_runner, ours_control, process.pid)

    async def _get(self, image: Image, key: Key) -> Template:
        task = self._tasks.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result().is_gone)):
            start = self._start(image, for_web=key[3])
            task = self._tasks[key] = asyncio.create_task(start, name=f"template {image.key}")
            self._drop_unused()
        return await asyncio.shield(task)

    async def _options(self, for_web: bool) -> tuple[str, ...]:
        return ("--web", str(await self._web_layer())) if for_web else ()

    async def _start(self, image: Image, *, for_web: bool) -> Template:
        options = await self._options(for_web)
        began = time.perf_counter()
        ours, its = socket.socketpair()
        words = tempfile.TemporaryFile()  # noqa: SIM115 - the template closes it
        try:
            process = await self._spawn(image, (*options, str(its.fileno())), (its.fileno(),), {}, "/", words)
        except OSError as error:
            ours.close()
            words.close()
            raise ForkError(f"the image's Python cannot be started: {error}") from error
        finally:
            its.close()
        template = Template(process, ours, words)
        self._node.spawn(self._reap(process), f"reap template {image.key}")
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

    async def _spawn(
        self,
        image: Image,
        arguments: tuple[str, ...],
        descriptors: tuple[int, ...],
        environment: Mapping[str, str],
        cwd: str,
        words: IO[bytes] | None = None,
    ) -> asyncio.subprocess.Process:
        async with self._children.starting():
            process = await asyncio.create_subprocess_exec(
                image.python, "-s", "-P", self._bootstrap, *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=words or asyncio.subprocess.DEVNULL,
                env={**_base_environment(image), **environment},
                cwd=cwd,
                pass_fds=descriptors,
                start_new_session=True,
            )  # fmt: skip
            self._children.own.add(process.pid)
        return process

    async def _reap(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._children.own.discard(process.pid)
        self._children.awaited.discard(process.pid)

    def _drop_unused(self) -> None:
        """End templates that nobody used for long, and the least used beyond the limit."""
        now = asyncio.get_running_loop().time()
        running = [
            (task.result().used, key)
            for key, task in self._tasks.items()
            if task.done() and not task.cancelled() and not task.exception()
        ]
        running.sort()
        for place, (used, key) in enumerate(running):
            if now - used > UNUSED or len(running) - place > MAX_TEMPLATES:
                self._tasks.pop(key).result().close()

    async def close(self) -> None:
        """End all templates."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        for template in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(template, Template):
                template.close()
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await template.process.wait()
                with suppress(ProcessLookupError):
                    os.kill(template.process.pid, signal.SIGKILL)


def _base_environment(image: Image) -> dict[str, str]:
    """Return what every program of an image finds in its environment."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= allocator.VARIABLES
    search = [str(image.python.parent), *(os.environ.get("PATH", os.defpath).split(os.pathsep))]
    environment["PATH"] = os.pathsep.join(search)
    environment["VIRTUAL_ENV"] = str(image.python.parent.parent)
    return environment
