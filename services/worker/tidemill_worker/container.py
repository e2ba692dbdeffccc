"""One container as its worker sees it: two sockets, a phase, the inputs it has, a deadline.

    starting ── READY ──> idle <── inputs ──> busy ──> stopping ──> ended
        └────────────── START_FAILED, or the end of its processes ────┘

The runner's socket carries inputs and outputs, init's the raw output and the exit status. The container
has ended when init is gone *and* the runner's socket is drained: what was sent before the end counts.
Nothing that arrives here is trusted: a frame that makes no sense ends the container.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, Protocol

from tidemill._container.frames import FromInit, FromRunner, ToInit, ToRunner
from tidemill._wire.messages import Credit
from tidemill._wire.specs import Pool
from tidemill_worker import decisions
from tidemill_worker.bus_bridge import Bridge
from tidemill_worker.decisions import Exit, Killed, Phase
from tidemill_worker.framing import Frame, FrameProtocol
from tidemill_worker.generators import Stream
from tidemill_worker.logs import Log
from tidemill_worker.node import Node
from tidemill_worker.sessions import Sessions
from tidemill_worker.work import Part

GRACE = 2.0  # seconds that a cancelled input gets to end by itself
KILL_AFTER = 2.0  # seconds that init gets to end everything before it is killed itself
DRAIN = 1.0  # seconds to wait for the end of the runner's socket once init is gone

RawOutput = list[Any]  # index, status, format, bytes


class Listener(Protocol):
    """Who is told what a container does: its pool."""

    def on_outputs(
        self, container: "Container", part: Part, outputs: list[RawOutput], seconds: float
    ) -> None:
        """Take finished inputs of a part."""

    def on_pieces(
        self, container: "Container", part: Part, index: int, first: int, pieces: list[Any]
    ) -> None:
        """Take values of a generator."""

    def on_returned(self, container: "Container", part: Part, indices: list[int]) -> None:
        """Take inputs back that did not start."""

    def on_limit(self, container: "Container", inputs: int) -> None:
        """Let so many inputs run at once in it from now on; none: end it after those that it has."""


class Container:
    """A container from its placement to its end."""

    def __init__(self, node: Node, pool: Pool, container_id: str, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        self.id = container_id
        self.pool = pool
        self.phase = Phase.STARTING
        self.since = time.time()
        self.began = [self.since] * 2  # unix times: when it was ordered, and when that was heard
        self.pid = 0  # of init
        self.parts: dict[int, Part] = {}  # by chunk number, in the order in which they run
        self.deadline = inf
        self.progress = 0.0  # when it last began or finished an input
        self.is_async = False
        self.has_exit_hooks = False
        self.recalled: set[int] = set()  # chunks asked back
        self.timed_out: set[tuple[int, int]] = set()  # chunks and indices of inputs being ended for it
        self.together = decisions.together(pool.spec)  # whether inputs run side by side, or in a batch
        self.slots = decisions.slots(pool.spec)  # inputs that run side by side
        self.killed: Killed | None = None
        self.log = Log(node, pool, container_id)
        # The phases of its start in seconds, or the failure that it reports instead.
        self.ready: asyncio.Future[dict[str, float] | bytes] = loop.create_future()
        self.ended: asyncio.Future[Exit] = loop.create_future()
        self.examine: Callable[[], str] = lambda: ""  # says what limit ended it, if one did
        self.drained = asyncio.Event()  # it takes no more, and nothing runs
        self._node = node
        self._loop = loop
        self._listener = listener
        self._runner = FrameProtocol(self._on_runner_frame, self._on_runner_lost)
        self._init = FrameProtocol(self._on_init_frame, self._on_init_lost)
        self._open = 0  # sockets
        self._status: int | None = None
        self._streams: dict[tuple[int, int], Stream] = {}  # by chunk and index
        self._bridge = Bridge(node, pool, self._runner)
        self.sessions = Sessions(node, pool, container_id, self._init, self._runner)
        self._numbers = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._from_runner: dict[int, Callable[..., None]] = {
            FromRunner.READY: self._on_ready,
            FromRunner.START_FAILED: self._on_start_failed,
            FromRunner.OUTPUTS: self._on_outputs,
            FromRunner.PIECES: self._on_pieces,
            FromRunner.RETURNED: self._on_returned,
            FromRunner.LOG: self.log.write,
            FromRunner.ASK: self._bridge.ask,
            FromRunner.STOPPED: lambda: None,
            FromRunner.INTERACT: self.sessions.ask,
            FromRunner.RELEASE: self.sessions.release,
            FromRunner.LIMIT: self._on_limit,
        }
        self._from_init: dict[int, Callable[..., None]] = {
            FromInit.STARTED: lambda _pid: None,
            FromInit.OUTPUT: self.log.write_bytes,
            FromInit.EXITED: self._on_exited,
            FromInit.STREAM: self.sessions.on_frame,
            FromInit.TERMINAL: self.sessions.on_terminal,
        }

    # --- orders

    async def connect(self, runner: socket.socket, control: socket.socket, pid: int) -> None:
        """Take over the worker's ends of its sockets."""
        self.pid = pid
        self._open = 2
        await self._loop.create_unix_connection(lambda: self._runner, sock=runner)
        await self._loop.create_unix_connection(lambda: self._init, sock=control)
        self._node.deadlines.watch(self)
        if self.killed is not None:  # while it was on its way
            self._end_processes()

    def configure(self, configuration: dict[str, Any]) -> None:
        """Tell the runner what it is to run."""
        self._runner.send((ToRunner.START, configuration))
        variables = {**configuration["surroundings"], **configuration["env"]}
        self.sessions.configure(variables, configuration["workdir"])

    def assign(self, part: Part) -> None:
        """Hand inputs over. They run after those it already has, or beside them."""
        self._runner.send((ToRunner.CHUNK, *self._admit(part)))
        self._on_assigned(part)
        self._enter(Phase.BUSY)

    def _on_assigned(self, part: Part) -> None:
        if self.together or len(self.parts) == 1:
            self._begin(part, part.first())

    def assign_batch(self, parts: list[Part]) -> None:
        """Hand parts of one input each over, which run together."""
        self._runner.send((ToRunner.BATCH, [self._admit(part) for part in parts]))
        began = self._loop.time()
        for part in parts:
            self._begin(part, part.first(), began)
        self._enter(Phase.BUSY)

    def _admit(self, part: Part) -> tuple[Any, ...]:
        """Take a part in; return it as the runner is told of it."""
        self._numbers += 1
        part.number = number = self._numbers
        chunk = part.work.chunk
        if not chunk.collect and self.pool.spec.yields(chunk.method):
            for index in part.left:
                self._streams[number, index] = self._new_stream(part, index)
        told = (
            number,
            chunk.call,
            list(part.left),
            chunk.attempt,
            part.payloads(),
            chunk.parent,
            chunk.root,
            chunk.collect,
            chunk.method,
        )
        part.fetched = None
        self.parts[number] = part
        return told

    def recall(self, part: Part) -> None:
        """Ask back what has not started; the answer is `on_returned`."""
        if part.number not in self.recalled:
            self.recalled.add(part.number)
            self._runner.send((ToRunner.RECALL, part.number))

    def cancel(self, part: Part) -> None:
        """End the input of a part that runs, and start no other of it.

        One thread among several cannot be ended, nor one input of a batch: with what only runs beside it the
        whole container goes, a batch when nothing of it is wanted any more.
        """
        self.recall(part)
        if part.running == -1 or part.grace is not None:
            return
        if (self.is_async and not self.pool.spec.batching) or not self.together:
            self._end_running(part, Killed.CANCEL)
        elif not self.pool.spec.batching or all(each.work.voided for each in self.parts.values()):
            self.kill(Killed.CANCEL)

    def retire(self) -> None:
        """Take no more, and give back what has not started. What runs goes on."""
        self._enter(Phase.STOPPING)
        for part in self.parts.values():
            self.recall(part)
        if not self.parts:
            self.drained.set()

    def stop(self) -> None:
        """Have the exit hooks run, and end."""
        self._enter(Phase.STOPPING)
        self._runner.send((ToRunner.STOP,))

    def interrupt(self) -> None:
        """Have it end now, in order: what runs is interrupted and given back, then the exit hooks run."""
        self._enter(Phase.STOPPING)
        self._init.send((ToInit.SIGNAL, signal.SIGTERM))

    def kill(self, why: Killed) -> None:
        """End all its processes now."""
        if self.killed is None:
            self.killed = why
            self._enter(Phase.STOPPING)
            if self._open:
                self._end_processes()

    def reconnected(self) -> None:
        """Let user code know that it may have missed messages."""
        self._bridge.reconnected()

    def close_stream(self, part: Part, index: int) -> None:
        """Forget the stream of an input that has ended."""
        if stream := self._streams.pop((part.number, index), None):
            stream.close()

    def pieces(self, part: Part, index: int) -> int:
        """Return how many values of a generator were sent."""
        stream = self._streams.get((part.number, index))
        return stream.pieces if stream else 0

    @property
    def takes_work(self) -> bool:
        """Whether it may be given inputs."""
        return self.phase in (Phase.IDLE, Phase.BUSY)

    @property
    def may_wait(self) -> bool:
        """Whether its running input has called a function."""
        return self.phase is Phase.BUSY and self._bridge.called >= self.progress

    # --- the input that runs

    def _begin(self, part: Part, index: int, began: float | None = None) -> None:
        """Note that an input starts now. Those of a batch have begun at the same time."""
        part.running = index
        self.progress = now = began or self._loop.time()
        if part.grace is None:
            self._watch(part, now + self.pool.spec.timeout)

    def _watch(self, part: Part, deadline: float) -> None:
        """Give the running input of a part a deadline. That of the container is none of them too late."""
        part.until = deadline
        self.deadline = min(self.deadline, deadline) if self.together else deadline
        self._node.deadlines.hint(self.deadline)

    def _end_running(self, part: Part, why: Killed) -> None:
        """Cancel the running input; if it has not ended after the grace, kill the container."""
        part.grace = why
        self._runner.send((ToRunner.CANCEL, part.number, part.running))
        self._watch(part, self._loop.time() + GRACE)

    def on_deadline(self) -> None:
        """Act on inputs that run for too long, or that did not end when they were told to."""
        now = self._loop.time()
        running = [part for part in self.parts.values() if part.running != -1]
        for part in [part for part in running if part.until <= now]:
            if part.grace is not None:
                self.kill(part.grace)
                return
            self.timed_out.add((part.number, part.running))
            if self.is_async:
                self._end_running(part, Killed.TIMEOUT)
            else:
                self.kill(Killed.TIMEOUT)
        self.deadline = min((part.until for part in running), default=inf)

    def finished(self, part: Part) -> None:
        """Forget a part of which nothing is left, and go on with the next."""
        self.parts.pop(part.number, None)
        self.recalled.discard(part.number)
        if not self.parts:
            self.deadline = inf
            self._enter(Phase.IDLE)
            if self.phase is Phase.STOPPING:
                self.drained.set()

    # --- frames of the runner

    def _on_runner_frame(self, frame: Frame) -> None:
        self._dispatch(self._from_runner, frame)

    def _dispatch(self, table: dict[int, Callable[..., None]], frame: Frame) -> None:
        if self.killed is Killed.VIOLATION:
            return
        try:
            table[frame[0]](*frame[1:])
        except Exception:
            self._node.log.exception("a frame of a container makes no sense", container=self.id)
            self.kill(Killed.VIOLATION)

    def _on_ready(self, report: dict[str, Any]) -> None:
        self.is_async = bool(report.get("async"))
        self.has_exit_hooks = bool(report.get("exits"))
        phases = {phase: float(report[phase]) for phase in ("import", "enter")}
        if not self.ready.done():
            if self.phase is Phase.STARTING:
                self._enter(Phase.IDLE)
            self.ready.set_result(phases)

    def _on_start_failed(self, failure: bytes) -> None:
        if not self.ready.done():
            self.ready.set_result(bytes(failure))

    def _on_outputs(self, number: int, outputs: list[RawOutput], seconds: float, running: int) -> None:
        part = self.parts[number]
        self.log.flush()
        if part.grace is not None and any(output[0] == part.running for output in outputs):
            part.grace = None  # it ended in time
        part.running = -1
        self._listener.on_outputs(self, part, outputs, seconds)
        self._move_on(number, part, running)

    def _move_on(self, number: int, part: Part, running: int) -> None:
        """Note which input runs now."""
        if number in self.parts and running in part.left:
            self._begin(part, running)
        elif self.together:
            return  # all that it has began when it was handed over
        elif (current := next(iter(self.parts.values()), None)) and current.running == -1 and current.left:
            self._begin(current, current.first())
        elif not self.parts:
            self.deadline = inf
            return
        else:
            return
        self._cancel_if_void()

    def _cancel_if_void(self) -> None:
        current = next(iter(self.parts.values()))
        if current.work.voided and current.grace is None:
            self._end_running(current, Killed.CANCEL)

    def _on_limit(self, inputs: int) -> None:
        if type(inputs) is not int or inputs < 0:
            raise ValueError("not a number of inputs")
        self._listener.on_limit(self, inputs)

    def _on_pieces(self, number: int, index: int, first: int, pieces: list[Any]) -> None:
        part = self.parts[number]
        if not self._streams[number, index].add(first, pieces):
            raise ValueError("values beyond the credit")
        self.log.flush()
        self._listener.on_pieces(self, part, index, first, pieces)

    def _on_returned(self, number: int, indices: list[int]) -> None:
        part = self.parts.get(number)
        self.recalled.discard(number)
        if part is None:  # it finished before it heard that it was asked back
            return
        for index in indices:
            self.close_stream(part, index)
        if part.running in indices:
            part.running = -1
        self._listener.on_returned(self, part, indices)
        if part.running == -1 and self.parts:
            self._move_on(number, part, -1)

    def _new_stream(self, part: Part, index: int) -> Stream:
        def grant(credit: Credit) -> None:
            self._runner.send((ToRunner.CREDIT, part.number, index, credit.pieces, credit.bytes))

        def stalled() -> None:
            if part.number in self.parts and index in part.left:
                self.kill(Killed.STALLED)

        return Stream(self._node, part.work.workspace, part.work.chunk.call, index, grant, stalled)

    # --- the end

    def _on_exited(self, status: int) -> None:
        self._status = status

    def _on_init_frame(self, frame: Frame) -> None:
        self._dispatch(self._from_init, frame)

    def _on_runner_lost(self) -> None:
        self._socket_lost()

    def _on_init_lost(self) -> None:
        self._socket_lost()
        if self._open:  # the runner's socket may be held by a descendant that is not dead yet
            self._timers.append(self._loop.call_later(DRAIN, self._runner.close))

    def _socket_lost(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._end()

    def _end_processes(self) -> None:
        self._init.send((ToInit.KILL,))
        self._timers.append(self._loop.call_later(KILL_AFTER, self._kill_init))

    def _kill_init(self) -> None:
        """End an init that does not; what it leaves behind is swept up by the worker."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._init.close()

    def _end(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self.deadline = inf
        self._node.deadlines.forget(self)
        for stream in self._streams.values():
            stream.close()
        self._bridge.close()
        self.sessions.close()
        self.log.flush()
        self._enter(Phase.STOPPING)
        self.drained.set()
        if not self.ended.done():
            not_by_us = self.killed in (None, Killed.EXCESS)
            by_force = not_by_us and (self._status is None or self._status == -signal.SIGKILL)
            self.ended.set_result(Exit(self._status, self.killed, self.examine() if by_force else ""))

    def _enter(self, phase: Phase) -> None:
        if phase is self.phase or (self.phase is Phase.STOPPING and phase is not Phase.STOPPING):
            return
        self.phase = phase
        self.since = time.time()
        self._node.on_change()
