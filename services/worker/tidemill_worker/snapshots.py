"""Snapshots: templates with a pool's code in them, made when its first container starts.

image's Python ──> tier: limits, network ──> TAKE ──> READY: containers are forked from it
                                               └────> REFUSED: containers start as others do, and are told why

One is made per version of the code, image, parameters and variables, secrets among them. Those that nobody
used for long end, as do the least used ones beyond what all of them may take of the memory.
"""

import asyncio
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec

from tidemill import exception
from tidemill._container.frames import ToTemplate
from tidemill._wire import ids
from tidemill._wire.specs import Pool
from tidemill_worker import decisions
from tidemill_worker.capacity import Reservation
from tidemill_worker.children import Children
from tidemill_worker.images import Image
from tidemill_worker.node import Node
from tidemill_worker.spares import Spares
from tidemill_worker.templates import NoSnapshot, Template, Templates, control_pair
from tidemill_worker.tier import Files, ForkError, Launch, Sockets, Tier

OPTION = "enable_memory_snapshot"
MAX_SNAPSHOTS = 64
TRIES = 3  # to fork a container, each from a new snapshot, if each of them ends
LOOK_EVERY = 30.0  # seconds between looks for those that nobody uses
MAX_REFUSED = 1024  # of which the reason is remembered
_LATE = 5.0  # seconds that the last of the output gets

Hear = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """A container that is to be forked from a snapshot, with what there must be in that.

    `surroundings` are the container's own variables, `configuration` what its runner will be told. `hear`
    gets what the code prints while the snapshot is taken, `say` a line of ours.
    """

    image: Image
    container: str
    reservation: Reservation
    surroundings: Mapping[str, str]
    configuration: Mapping[str, Any]
    files: Files
    hear: Hear
    say: Callable[[str], None]

    def key(self) -> str:
        """Return what is the same for containers that can be forked from the same snapshot."""
        pool = self.reservation.pool
        told = {name: value for name, value in self.configuration.items() if name not in _OF_EACH}
        image = self.image
        parts = (pool.id, image.key, image.made_of(), pool.spec.block_network, pool.has_web, image.files)
        data = msgspec.msgpack.encode((parts, told), order="sorted")
        return hashlib.sha256(data).hexdigest()


_OF_EACH = ("container", "handles", "own", "workdir", "began")  # of what a runner is told, it is told again


@dataclass(slots=True)
class _Snapshot:
    """A snapshot that stands, or is being made."""

    id: str
    task: "asyncio.Task[Template]" = field(init=False)

    @property
    def template(self) -> Template | None:
        """Return the process, if it is ready and has not ended."""
        task = self.task
        if not task.done() or task.cancelled() or task.exception() or task.result().is_gone:
            return None
        return task.result()

    @property
    def is_over(self) -> bool:
        return self.task.done() and self.template is None


class Snapshots:
    """All snapshots of this worker. `memory` is how many MiB they may take together."""

    def __init__(
        self,
        node: Node,
        children: Children,
        tier: Tier,
        templates: Templates,
        spares: Spares,
        memory: int,
    ) -> None:
        self._node = node
        self._children = children
        self._tier = tier
        self._templates = templates
        self._spares = spares
        self._memory = memory << 20
        self._snapshots: dict[str, _Snapshot] = {}
        self._refused: dict[str, str] = {}

    async def fork(self, wish: Wish) -> Sockets | None:
        """Return a new container with the code in it, or None where there can be no snapshot.

        Raises:
            FunctionTimeoutError: the code was not ready in time.
            ForkError: no process could be made.
        """
        key = wish.key()
        try:
            if reason := self._refused.get(key) or _unfit(wish.reservation.pool):
                raise NoSnapshot(reason, final=False)
            return await self._forked(key, wish)
        except NoSnapshot as refusal:
            if refusal.final:
                self._remember(key, str(refusal))
            wish.say(f"started without its memory snapshot: {refusal}")
            return None

    async def _forked(self, key: str, wish: Wish) -> Sockets:
        """Fork a container, from another snapshot where one has ended; not for ever: forks may be its end."""
        for tries in count(1):
            template = await self._get(key, wish)
            try:
                return await self._spares.container(template, wish.container, wish.reservation)
            except ForkError as error:
                if not template.is_gone:
                    raise
                if tries == TRIES:
                    raise NoSnapshot(f"it has ended when it was to be forked: {error}", final=True) from error
        raise AssertionError

    async def run(self) -> None:
        """End snapshots and templates that nobody used for long, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._drop_unused()
            self._templates.drop_unused()

    async def close(self) -> None:
        """End all of them."""
        snapshots, self._snapshots = list(self._snapshots.values()), {}
        for each in snapshots:
            each.task.cancel()
        for template in await asyncio.gather(*(each.task for each in snapshots), return_exceptions=True):
            if isinstance(template, Template):
                await template.end()

    def _remember(self, key: str, reason: str) -> None:
        while len(self._refused) >= MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[key] = reason

    async def _get(self, key: str, wish: Wish) -> Template:
        snapshot = self._snapshots.get(key)
        if snapshot is None or snapshot.is_over:
            snapshot = self._snapshots[key] = _Snapshot(ids.new(ids.CONTAINER))
            snapshot.task = asyncio.create_task(self._take(snapshot.id, wish), name=f"snapshot {key[:12]}")
            snapshot.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # it is heard
        try:
            return await asyncio.shield(snapshot.task)
        finally:
            if snapshot.is_over and self._snapshots.get(key) is snapshot:
                del self._snapshots[key]

    async def _take(self, name: str, wish: Wish) -> Template:
        """Return a new snapshot."""
        began = time.perf_counter()
        pool = wish.reservation.pool
        limit = decisions.startup_limit(pool.spec)
        try:
            async with asyncio.timeout(limit):
                template = await self._make(name, wish)
        except TimeoutError as error:
            message = f"the container was not ready within {limit:g} s"
            raise exception.FunctionTimeoutError(message) from error
        report = {phase: round(seconds, 6) for phase, seconds in template.report.items()}
        report["start"] = round(time.perf_counter() - began, 4)
        self._node.log.info("snapshot taken", pool=pool.id, pid=template.process.pid, **report)
        self._drop_unused()
        return template

    async def _make(self, name: str, wish: Wish) -> Template:
        pool = wish.reservation.pool
        web = await self._templates.web_layer() if pool.has_web else None
        place = await self._tier.settle(name, wish.image, wish.files)
        variables = {**wish.configuration["env"], **wish.surroundings, "TMPDIR": place.temporary}
        ours, its = socket.socketpair()
        control, its_control = control_pair()
        output, its_output = os.pipe()
        words = tempfile.TemporaryFile()  # noqa: SIM115 - the template closes it
        fds = (its.fileno(), its_control.fileno(), its_output)
        try:
            launched = await self._tier.launch(
                Launch(
                    wish.image, pool.workspace, fds, kind="--snapshot", id=name,
                    blocked=pool.spec.block_network, environment=variables, web=web, words=words,
                )
            )  # fmt: skip
        except BaseException as error:
            for sock in (ours, control):
                sock.close()
            os.close(output)
            words.close()
            await self._tier.clean(name)
            if isinstance(error, OSError):
                raise ForkError(f"the image's Python cannot be started: {error}") from error
            raise
        finally:
            its.close()
            its_control.close()
            os.close(its_output)
        template = Template(launched, ours, words)
        self._node.spawn(self._see_end(name, template), f"reap snapshot {name}")
        try:
            with control:
                heard = await _listen(output, wish.hear)
                await self._tier.admit(name, wish.reservation, launched, Sockets(ours, control, 0))
            told = {**wish.configuration, "workdir": place.workdir}
            await template.open(decisions.startup_limit(pool.spec) + _LATE, (ToTemplate.TAKE, told))
            with suppress(TimeoutError):
                async with asyncio.timeout(_LATE):
                    await heard.wait()
        except BaseException:
            await template.end()
            await self._children.sweep()
            raise
        return template

    async def _see_end(self, name: str, template: Template) -> None:
        await self._templates.reap(template.launched)
        await self._tier.clean(name)

    def _drop_unused(self) -> None:
        """End those that nobody used for long, and the least used beyond what is allowed."""
        standing = {key: each.template for key, each in self._snapshots.items()}
        known = {key: (one.used, int(one.report["memory"])) for key, one in standing.items() if one}
        now = asyncio.get_running_loop().time()
        for key in decisions.superfluous(known, now, most=MAX_SNAPSHOTS, memory=self._memory):
            template = self._snapshots.pop(key).template
            if template is not None:
                template.close()


def _unfit(pool: Pool) -> str:
    """Return why a pool's containers are never forked from a snapshot; empty if they can be."""
    if pool.spec.resources.gpus:
        return "functions with GPUs have none, for CUDA cannot be in a copy"
    return ""


class _Output(asyncio.Protocol):
    """What comes through a pipe."""

    def __init__(self, hear: Hear) -> None:
        self.ended = asyncio.Event()
        self._hear = hear

    def data_received(self, data: bytes) -> None:
        self._hear(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self.ended.set()


async def _listen(descriptor: int, hear: Hear) -> asyncio.Event:
    """Pass on what comes through a pipe; return what says that all has come."""
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    _, protocol = await asyncio.get_running_loop().connect_read_pipe(lambda: _Output(hear), pipe)
    return protocol.ended
