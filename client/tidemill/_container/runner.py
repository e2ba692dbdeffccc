"""The runner: the process of a container that executes user code.

    worker ══ socket ══> reading thread ──> inbox ──> main thread: decode, call, encode ──> outbox ══> worker
                              │                             ▲
                              ├── CANCEL ── signal ─────────┘
                              ├── CREDIT, ANSWER, DELIVER ──> whoever waits for them
                              └── RECALL ── takes back what has not started

The main thread executes synchronous functions itself and writes their results itself. An async function
gets an event loop there instead; one that answers web requests reads the socket itself where it can, see
`reading`. A third thread sends what was held back to be sent together. Everything that is not always needed
is imported when it is.
"""

import os
import signal
import socket
import sys
import threading
import time
from _queue import SimpleQueue
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill._container import lifecycle, outcomes, sockets, streams, targets
from tidemill._container.configuration import Configuration
from tidemill._container.execution import Execution, Parts
from tidemill._container.frames import FromRunner, ToRunner
from tidemill._container.guard import LOADING, Guard, Key
from tidemill._container.link import Link
from tidemill._container.outbox import Outbox
from tidemill._container.outcomes import NotTransported, Outcomes
from tidemill._container.reading import Reading
from tidemill._container.sockets import Frame
from tidemill._container.tags import Tagger, Tags
from tidemill._container.targets import Hook, Program
from tidemill._container.terminal import Terminal
from tidemill._container.work import Chunk
from tidemill._wire import failure

if TYPE_CHECKING:
    from tidemill._container.batches import Batch
    from tidemill._container.coroutines import AsyncExecution
    from tidemill._container.web import WebExecution

_STACK = 512 * 1024  # bytes of our own threads' stacks
_LEFT_TO_MAIN = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM}


class Runner:
    """A runner, from its START to its end."""

    def __init__(self, sock: socket.socket, tagger: Tagger) -> None:
        self._sock = sock
        self._reading = Reading(sockets.Reader(sock), self._handle, partial(os._exit, 1))
        self._tagger = tagger
        self._outbox = Outbox(sock)
        self._guard = Guard(self._on_interrupt)
        self._start: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._inbox: SimpleQueue[Chunk | Batch | None] = SimpleQueue()  # None: no more
        self._chunks: dict[int, Chunk] = {}
        self._gate = threading.Lock()  # a chunk is either taken before the stop, or given back
        self._stopping = False
        self._execution: Execution | AsyncExecution | WebExecution | None = None
        self._web: WebExecution | None = None
        self._exit_hooks: tuple[Hook, ...] = ()
        self._link: Link | None = None
        self._terminal: Terminal | None = None

    # --- the main thread

    def run(self) -> int:
        """Live; return the exit status."""
        self._guard.install()
        streams.replace_standard_streams(self._outbox, self._guard)
        self._start_threads()
        streams.carry_context_into_threads()
        os.register_at_fork(after_in_child=self._detach)
        configuration = Configuration.read(self._start.get())
        try:
            serve = self._load(configuration)
        except BaseException as error:
            return self._end(0) if self._guard.interrupted else self._fail_to_start(configuration, error)
        try:
            interrupted = serve()
        except NotTransported as error:
            outcomes.show(error.__cause__ or error)
            return self._end(130 if isinstance(error.__cause__, KeyboardInterrupt) else 1)
        self._stop_taking(interrupted)
        return self._end(0)

    def _load(self, configuration: Configuration) -> Callable[[], list[Key]]:
        """Import the user's code and say READY; return what serves its inputs until the end."""
        began, moment = time.perf_counter(), time.time()
        self._link = link = Link(
            self._outbox, self._guard, configuration.max_payload, self._reading.by_thread
        )
        terminal = self._terminal = Terminal(
            self._outbox, self._reading.by_thread, interactive=configuration.interactive
        )
        terminal.install()
        taken = _taken()
        lifecycle.put_in_place(
            configuration, link.connect, terminal.attach, self._limit, again=taken is not None
        )
        self._guard.arm(LOADING)
        try:
            program = taken or targets.load(configuration)
            imported = time.perf_counter()
            serve = self._prepare(configuration, program)
        finally:
            self._guard.active = None
        report = {
            "import": imported - began,
            "enter": time.perf_counter() - imported,
            "generator": configuration.is_generator,
            "async": self._web is not None or program.is_async,
            "exits": bool(program.exit),
        }
        if self._web is not None:
            spans = [after - before for before, after in pairwise((*configuration.began, moment))]
            self._web.tell_start((*spans, report["import"], report["enter"]))
        self._outbox.frame(FromRunner.READY, report)
        return serve

    def _prepare(self, configuration: Configuration, program: Program) -> Callable[[], list[Key]]:
        results = Outcomes(configuration.container, restrict_output=configuration.restrict_output)
        terminal = self._terminal
        assert terminal is not None
        parts = Parts(program, results, self._outbox, self._tagger, terminal)
        if configuration.web:
            return self._prepare_web(configuration, parts)
        if program.is_async or configuration.slots > 1:
            loop = self._execution = _on_a_loop(configuration.slots)(parts, self._inbox, self._forget)
            terminal.on_interrupt = loop.on_key
            self._enter(program, loop.finish_hook)
            return loop.serve
        execution = self._execution = Execution(parts, self._guard)
        terminal.on_interrupt = self._guard.on_key
        self._enter(program, execution.finish_hook)
        return lambda: self._serve(execution)

    def _limit(self, inputs: int) -> None:
        """Tell the worker how many inputs may run at once. For user code."""
        self._guard.hold()
        try:
            self._outbox.frame(FromRunner.LIMIT, inputs)
        finally:
            self._guard.release()

    def _enter(self, program: Program, finish: Callable[[Awaitable[Any]], None]) -> None:
        """Run the enter hooks; from then on the exit hooks are owed. `finish` awaits for async ones."""
        for hook in (*program.snap, *program.enter):
            _run_hook(hook, finish)
        self._exit_hooks = program.exit

    def _prepare_web(self, configuration: Configuration, parts: Parts) -> Callable[[], list[Key]]:
        """Make the apps of web functions; return what answers their requests."""
        from tidemill._container.web import WebExecution

        self._web = self._execution = WebExecution(
            parts,
            configuration.web,
            configuration.slots,
            inbox=self._inbox,
            on_finished=self._forget,
            enter=partial(self._enter, parts.program),
        )
        return partial(self._serve_web, self._web)

    def _serve_web(self, web: "WebExecution") -> list[Key]:
        """Answer requests until there are no more; see `WebExecution.serve`."""
        self._reading.let_loop(partial(web.watch, self._sock))
        try:
            return web.serve()
        finally:
            self._reading.by_thread()

    def _serve(self, execution: Execution) -> list[Key]:
        """Run chunks until there are no more; return the input that a stop signal interrupted, if any."""
        while (chunk := self._inbox.get()) is not None:
            interrupted = execution.run(chunk)
            if self._guard.interrupted:
                return interrupted
            self._forget(chunk)
            if self._inbox.empty():
                self._tagger.change("")
        return []

    def _forget(self, chunk: "Chunk | Batch") -> None:
        for each in (chunk,) if isinstance(chunk, Chunk) else chunk.chunks:
            self._chunks.pop(each.number, None)

    def _fail_to_start(self, configuration: Configuration, error: BaseException) -> int:
        outcomes.show(error)
        data = failure.from_exception(error, hide=outcomes.HIDDEN, place=configuration.container)
        self._outbox.frame(FromRunner.START_FAILED, data)
        return 1

    def _end(self, status: int) -> int:
        """Run what user code left for the end. A status other than 0 is no orderly stop."""
        self._tagger.change("")
        for hook in self._exit_hooks:
            assert self._execution is not None
            try:
                _run_hook(hook, self._execution.finish_hook)
            except BaseException as error:
                outcomes.show(error)
        if self._execution is not None:
            self._execution.close()
        lifecycle.finish()
        if not status:
            self._outbox.frame(FromRunner.STOPPED)
        self._outbox.flush()
        return status

    def _on_interrupt(self) -> None:
        """Stop, for a signal. This runs in its handler, where no lock may be taken."""
        self._inbox.put(None)
        if self._execution is not None:
            self._execution.interrupt()

    # --- both

    def _stop_taking(self, interrupted: list[Key]) -> None:
        """Give back everything that does not run, and from now on whatever comes."""
        with self._gate:
            self._stopping = True
        for chunk in list(self._chunks.values()):
            self._give_back(chunk, [index for number, index in interrupted if number == chunk.number])

    def _give_back(self, chunk: Chunk, interrupted: list[int]) -> None:
        indices = interrupted + chunk.recall()
        if indices:
            self._outbox.frame(FromRunner.RETURNED, chunk.number, indices, wait=False)

    # --- our other threads

    def _start_threads(self) -> None:
        """Start them so that signals are left to the main thread, and with small stacks."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_MAIN)
        size = threading.stack_size(_STACK)
        for name, target in (("read", self._reading.run), ("tick", self._outbox.tick)):
            threading.Thread(target=target, name=f"tidemill-{name}", daemon=True).start()
        threading.stack_size(size)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _handle(self, frame: Frame) -> None:
        """Take a frame of the worker, in the thread that reads, or on the loop that answers requests."""
        self._handlers[frame[0]](self, frame)

    def _on_start(self, frame: Frame) -> None:
        self._start.put(frame[1])

    def _on_chunk(self, frame: Frame) -> None:
        chunk = Chunk(frame)
        self._take([chunk], chunk)

    def _on_batch(self, frame: Frame) -> None:
        from tidemill._container.batches import Batch

        chunks = [Chunk([ToRunner.CHUNK, *fields]) for fields in frame[1]]
        self._take(chunks, Batch(chunks))

    def _take(self, chunks: list[Chunk], together: "Chunk | Batch") -> None:
        """Have chunks run, or give them back if this comes to its end."""
        with self._gate:
            if not self._stopping:
                self._chunks.update((chunk.number, chunk) for chunk in chunks)
                self._inbox.put(together)
        if self._stopping:
            for chunk in chunks:
                self._give_back(chunk, [])
        elif self._execution is not None:
            self._execution.wake()

    def _on_cancel(self, frame: Frame) -> None:
        _, number, index = frame
        chunk = self._chunks.get(number)
        if chunk is None:
            return
        if chunk.withdraw(index):
            self._outbox.output(number, index, *outcomes.cancelled(), wait=False)
        elif self._execution is not None:
            self._execution.cancel((number, index))

    def _on_recall(self, frame: Frame) -> None:
        chunk = self._chunks.get(frame[1])
        if chunk is not None:
            self._give_back(chunk, [])

    def _on_credit(self, frame: Frame) -> None:
        _, chunk, index, pieces, size = frame
        if self._execution is not None:
            self._execution.grant((chunk, index), pieces, size)

    def _on_stop(self, _frame: Frame) -> None:
        self._stop_taking([])
        self._inbox.put(None)
        if self._execution is not None:
            self._execution.wake()

    def _on_bus(self, frame: Frame) -> None:
        if self._link is not None:
            self._link.arrive(frame)

    def _on_terminal(self, frame: Frame) -> None:
        if self._terminal is not None:
            self._terminal.arrive(*frame[1:])

    def _on_stream(self, frame: Frame) -> None:
        if self._web is not None:
            self._web.feed(*frame[1:])

    def _on_released(self, _frame: Frame) -> None:
        if self._terminal is not None:
            self._terminal.released()

    _handlers: ClassVar[dict[int, Callable[["Runner", Frame], None]]] = {
        ToRunner.START: _on_start,
        ToRunner.CHUNK: _on_chunk,
        ToRunner.BATCH: _on_batch,
        ToRunner.CANCEL: _on_cancel,
        ToRunner.RECALL: _on_recall,
        ToRunner.CREDIT: _on_credit,
        ToRunner.STOP: _on_stop,
        ToRunner.ANSWER: _on_bus,
        ToRunner.DELIVER: _on_bus,
        ToRunner.RECONNECTED: _on_bus,
        ToRunner.TERMINAL: _on_terminal,
        ToRunner.RELEASED: _on_released,
        ToRunner.STREAM: _on_stream,
    }

    # --- a process that user code forked

    def _detach(self) -> None:
        """Leave everything to the parent: socket, signals, the bus."""
        self._guard.uninstall()
        self._outbox.detach()
        if self._link is not None:
            self._link.detach()


def _taken() -> Program | None:
    """Return what this process holds since before it was forked, if that is a snapshot."""
    snapshot = sys.modules.get("tidemill._container.snapshot")
    return None if snapshot is None else snapshot.program()


def _run_hook(hook: Hook, finish: Callable[[Awaitable[Any]], None]) -> None:
    awaited = hook()
    if hasattr(awaited, "__await__"):
        finish(awaited)


def _on_a_loop(slots: int) -> "type[AsyncExecution]":
    """Return what runs inputs on an event loop: one at a time, or several at once."""
    if slots > 1:
        from tidemill._container.concurrency import ConcurrentExecution

        return ConcurrentExecution
    from tidemill._container.coroutines import AsyncExecution

    return AsyncExecution


def run(sock: socket.socket, reading: dict[int, int], writing: dict[int, int], tags: Tags) -> None:
    """Be the runner on this socket, in a process that init has forked. Never returns."""
    os.setsid()
    lifecycle.connect_standard_streams(writing)
    os._exit(Runner(sock, Tagger(tags, reading, writing)).run())
