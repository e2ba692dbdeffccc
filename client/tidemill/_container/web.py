"""Running the requests of web functions: ASGI apps on one event loop, many requests at once.

worker ──> requests, frames of streams ──> loop ──> app ──> outputs and frames ──> worker
                                                    └─────> other methods of the same object

The worker sends no more requests than may run. The loop reads them itself (see `reading`); all that a thread
has taken in meanwhile costs it one wake-up. A class has an app for each of its methods that answers the web;
what else it can do runs on the same loop, as `ConcurrentExecution` has it.
"""

import asyncio
import socket
import time
from _queue import Empty, SimpleQueue
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import msgpack

from tidemill import _runtime, exception
from tidemill._container import apps
from tidemill._container.batches import Batch
from tidemill._container.concurrency import ConcurrentExecution
from tidemill._container.coroutines import end_loop
from tidemill._container.exchange import Exchange, HttpExchange
from tidemill._container.execution import Parts
from tidemill._container.frames import FromRunner
from tidemill._container.guard import Key
from tidemill._container.lifespan import App, Lifespan
from tidemill._container.outbox import Encoded
from tidemill._container.outcomes import cancelled
from tidemill._container.websocket import SocketExchange
from tidemill._container.work import Chunk, Task
from tidemill._runtime import current_input
from tidemill._wire import failure
from tidemill._wire.duplex import Frame, Kind
from tidemill._wire.messages import Format, Status
from tidemill._wire.web import HEAD, WEBSOCKET, Request

CROWD = 8  # requests under way above which outputs wait one more turn of the loop for others
STOPPED = failure.from_text("InternalFailure", "the container was told to stop while it answered")


class Site:
    """What one function or method answers with: see `exchange.Web`."""

    __slots__ = ("app", "finish", "lifespan", "note", "ready_at", "start", "state", "transmit")

    def __init__(self, app: App, execution: "WebExecution") -> None:
        self.app = app
        self.lifespan = Lifespan(app)
        self.state = self.lifespan.state
        self.ready_at = 0.0
        self.start: tuple[float, ...] = ()
        self.transmit = execution.transmit
        self.finish = execution.finish
        self.note = execution.note


class WebExecution:
    """Answers requests. What others than the main thread may call stands under its own heading."""

    def __init__(
        self,
        parts: Parts,
        webs: Mapping[str, dict[str, Any]],
        slots: int,
        *,
        inbox: "SimpleQueue[Any]",
        on_finished: Callable[[Chunk | Batch], None],
        enter: Callable[[Callable[[Awaitable[Any]], None]], None],
    ) -> None:
        """Make the apps of `webs`; `enter` runs what comes before, with what awaits something on the loop."""
        self._program = parts.program
        self._outbox = parts.outbox
        self._outcomes = parts.outcomes
        self._terminal = parts.terminal
        self._tagger = parts.tagger if slots == 1 else None  # whose output it is cannot be told by the time
        self._inbox = inbox
        self._on_finished = on_finished
        self._loop = asyncio.new_event_loop()
        self._exchanges: dict[int, tuple[Exchange, Chunk]] = {}  # by chunk
        self._frames: deque[tuple[int, Frame]] = deque()
        self._awake = False  # a wake-up is on its way
        self._flush_due = False
        self._noted = ""
        self._no_more = False
        self._interrupted = False
        self._serving = False
        if _runtime.container is not None:
            _runtime.container.note = self.note
        asyncio.set_event_loop(self._loop)
        enter(self.finish_hook)
        self._sites: dict[str, Site] = {}
        for method, web in webs.items():
            function = self._program.target(method).function
            site = self._sites[method] = Site(apps.make(function, web, slots, self._loop), self)
            self._loop.run_until_complete(site.lifespan.start())
        for site in self._sites.values():
            site.ready_at = time.perf_counter()
        self._others: ConcurrentExecution | None = None
        if len(self._program.targets) > len(self._sites):
            self._others = ConcurrentExecution(parts, SimpleQueue(), on_finished, self._loop)

    def tell_start(self, phases: tuple[float, ...]) -> None:
        """Let first responses tell how many seconds each phase of this container's start took."""
        for site in self._sites.values():
            site.start = phases

    # --- the main thread

    def serve(self) -> list[Key]:
        """Answer what comes until None comes; return what a stop signal interrupted: requests have failed."""
        self._serving = True
        self._loop.call_soon(self._turn)
        while not self._is_over():
            # What ends a process ends the loop too when a task of the user's own raises it.
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()
        self._serving = False
        return [] if self._others is None else self._others.outcome()

    def _is_over(self) -> bool:
        others = self._others
        if others is not None and (others.has_failed or not others.is_over):
            return others.has_failed
        return self._no_more and not self._exchanges

    def finish_hook(self, hook: Awaitable[Any]) -> None:
        """Await what an async hook returned, on the loop that requests run on."""
        self._loop.run_until_complete(asyncio.ensure_future(hook, loop=self._loop))

    def close(self) -> None:
        """Shut the apps down, end what user code has left on the loop, and the loop."""
        for site in self._sites.values():
            with suppress(BaseException):
                self._loop.run_until_complete(site.lifespan.stop())
        end_loop(self._loop)

    def _turn(self) -> None:
        """Take what has come, but while apps start and shut down, and hooks run: it might end these."""
        self._awake = False
        if not self._serving:
            return
        while not self._no_more:
            try:
                chunk = self._inbox.get_nowait()
            except Empty:
                break
            if chunk is None:
                self._no_more = True
                self._pass_on(None)
            elif self._interrupted:
                continue  # it is given back, as it is
            elif chunk.method not in self._sites and self._others is not None:
                self._pass_on(chunk)
            elif (task := chunk.start()) is None:
                self._on_finished(chunk)
            else:
                self._start(chunk, task)
        while self._frames:
            number, frame = self._frames.popleft()
            found = self._exchanges.get(number)
            if found is not None and found[0].stream is not None:
                found[0].stream.feed(frame)
        if self._no_more and not self._exchanges:
            self._loop.stop()

    def _pass_on(self, chunk: Chunk | None) -> None:
        if self._others is not None:
            self._others.take(chunk)

    def _start(self, chunk: Chunk, task: Task) -> None:
        try:
            exchange = self._exchange(task)
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            problem = exception.ExecutionError(f"the input is no web request: {error}")
            self._outbox.output(*task.key, *self._outcomes.failure(problem))
            self._on_finished(chunk)
            return
        self._exchanges[chunk.number] = exchange, chunk
        if self._tagger is not None:
            self._tagger.change(task.now.input_id)
        context = copy_context()
        context.run(current_input.set, task.now)
        exchange.task = self._loop.create_task(exchange.run(), context=context)
        exchange.task.add_done_callback(lambda task: self._on_done(exchange, task))

    def _exchange(self, task: Task) -> Exchange:
        form, data = task.payload
        if form != Format.HTTP:
            raise ValueError("it was sent by something else than a gateway")
        request = Request(*msgpack.unpackb(data, use_list=False))
        kind = SocketExchange if request.kind == WEBSOCKET else HttpExchange
        exchange = kind(self._sites[task.method], task.key, request)
        exchange.input_id = task.now.input_id
        return exchange

    def _on_done(self, exchange: Exchange, task: "asyncio.Task[None]") -> None:
        if exchange.key[0] in self._exchanges:  # it never began, or our own code failed
            error = None if task.cancelled() else task.exception()
            outcome = cancelled() if error is None else self._outcomes.failure(error)
            self.finish(exchange, *outcome)

    # --- what exchanges need

    def transmit(self, number: int, frame: Frame) -> None:
        """See `exchange.Web`. A head waits for what comes with it, a burst of a body's pieces for its end."""
        at_once = self._outbox.add_frame(FromRunner.STREAM, number, frame)
        if _waits(frame) and not (at_once and frame[0] == Kind.PIECE):
            self._flush_in_turn()
            if frame[0] != Kind.CREDIT:
                self._outbox.hold()  # an app may keep the loop for itself
        else:
            self._outbox.flush()

    def finish(self, exchange: Exchange, status: int, payload: Encoded) -> None:
        """See `exchange.Web`."""
        _, chunk = self._exchanges.pop(exchange.key[0])
        if self._interrupted and status == Status.CANCELLED:  # it was begun, and does not run elsewhere
            status, payload = Status.FAILURE, (Format.FAILURE, STOPPED)
        seconds = time.perf_counter() - exchange.began
        self._terminal.release()
        self._outbox.add_output(*exchange.key, status, payload, seconds=seconds)
        self._on_finished(chunk)
        self._flush_soon()
        if self._tagger is not None and not self._exchanges:
            self._tagger.change("")
        if self._no_more and not self._exchanges:
            self._loop.stop()

    def _flush_soon(self) -> None:
        """Send outputs: at once if there is no other request that may end in this turn."""
        if not self._exchanges:
            self._flush()
        else:
            self._flush_in_turn()

    def _flush_in_turn(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            if len(self._exchanges) > CROWD:
                self._loop.call_soon(self._loop.call_soon, self._flush)
            else:
                self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        self._outbox.flush()

    # --- any thread

    def note(self, input_id: str) -> None:
        """Have the worker record a request of its own: others are only counted."""
        if input_id != self._noted:
            self._noted = input_id
            self._outbox.frame(FromRunner.NOTE, input_id)

    def watch(self, sock: socket.socket, read: Callable[[], bool]) -> None:
        """Have the loop call `read` whenever something has come on a socket, while that returns True."""
        self._from_outside(self._loop.add_reader, sock, self._on_readable, sock, read)

    def _on_readable(self, sock: socket.socket, read: Callable[[], bool]) -> None:
        self._awake = True  # what comes needs no wake-up
        if not read():
            self._loop.remove_reader(sock)
        self._turn()

    # --- who reads: a thread, or the loop

    def wake(self) -> None:
        """Look into the inbox."""
        if not self._awake:
            self._awake = True
            self._from_outside(self._turn)

    def feed(self, number: int, frame: Frame) -> None:
        """Take a frame of a stream."""
        self._frames.append((number, frame))
        self.wake()

    def cancel(self, key: Key) -> None:
        """Stop a request that has started. If it has ended meanwhile, nothing happens."""
        self._from_outside(self._cancel, key)
        if self._others is not None:
            self._others.cancel(key)

    def interrupt(self) -> None:
        """Stop the requests that run, and start no other. Also called by a signal's handler."""
        self._interrupted = True
        if self._others is not None:
            self._others.interrupt()
        self._from_outside(self._cancel_all)
        self._from_outside(self._turn)

    def grant(self, key: Key, pieces: int, size: int) -> None:
        """Let a generator go on; requests have streams of their own."""
        if self._others is not None:
            self._others.grant(key, pieces, size)

    def _from_outside(self, callback: Callable[..., object], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the container is ending
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _cancel(self, key: Key) -> None:
        if found := self._exchanges.get(key[0]):
            found[0].leave()

    def _cancel_all(self) -> None:
        for exchange, _ in self._exchanges.values():
            if exchange.task is not None:
                exchange.task.cancel()


def _waits(frame: Frame) -> bool:
    """Return whether a frame may wait for others: what opens a stream, a head, a body's pieces, an end.

    Messages of a WebSocket have tags. They do not, nor what else is said to be heard at once.
    """
    kind = frame[0]
    return (
        kind in (Kind.CREDIT, Kind.END)
        or (kind == Kind.PIECE and not frame[2])
        or (kind == Kind.CONTROL and frame[2] == HEAD)
    )
