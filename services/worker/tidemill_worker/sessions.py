"""The duplex streams of one container: further processes in it, and the terminal of its runner.

    who asked ══ bus ══> outer ──┐                ┌──> inner ══ init's socket ══> process or terminal
              <══════════ end ───┴── joined ──────┴─── end <═════════════════════

The outer end notices when the asker dies, the inner one sees to it that the container keeps to its credit.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tidemill import exception
from tidemill._bus.protocol import BusError
from tidemill._container.frames import ToInit, ToRunner
from tidemill._container.sessions import WINDOW
from tidemill._duplex import Duplex, join, on_bus
from tidemill._wire import coding, failure, ids, subjects
from tidemill._wire.containers import AskTerminal, Execute
from tidemill._wire.duplex import PIECE_TO_CONTAINER
from tidemill._wire.specs import Pool
from tidemill_worker.framing import FrameProtocol
from tidemill_worker.node import Node

MAX_SESSIONS = 64  # of one container
TERMINAL_TIMEOUT = 10.0  # seconds for the caller, and for init, to make a terminal ready


class Sessions:
    """All streams of a container. Numbers are this side's names for them."""

    def __init__(
        self, node: Node, pool: Pool, container: str, init: FrameProtocol, runner: FrameProtocol
    ) -> None:
        self._node = node
        self._pool = pool
        self._container = container
        self._init = init
        self._runner = runner
        self._inner: dict[int, Duplex] = {}
        self._processes = 0  # that run or are being started
        self._devices: dict[int, asyncio.Future[str]] = {}
        self._numbers = 0
        self._terminal: Duplex | None = None  # the runner's, while it has one
        self._asking = False
        self._ended = False
        self._variables: dict[str, str] = {}
        self._workdir: str | None = None

    def configure(self, variables: dict[str, str], workdir: str) -> None:
        """Note what processes find in their environment; from now on they can be started."""
        self._variables, self._workdir = variables, workdir

    def close(self) -> None:
        """End all streams, also those that are only being opened: the container has ended."""
        self._ended = True
        for inner in list(self._inner.values()):
            inner.abort(exception.ServiceError("the container has ended"))
        for device in self._devices.values():
            if not device.done():
                device.set_exception(exception.ServiceError("the container has ended"))

    # --- what init says

    def on_frame(self, number: int, frame: list[Any]) -> None:
        """Take a frame of a stream."""
        if inner := self._inner.get(number):
            inner.feed(frame)

    def on_terminal(self, number: int, device: str, problem: str) -> None:
        """Learn whether the runner's terminal could be made."""
        waiting = self._devices.get(number)
        if waiting is None or waiting.done():
            return
        if problem:
            waiting.set_exception(exception.ServiceError(str(problem)))
        else:
            waiting.set_result(str(device))

    # --- processes

    async def execute(self, order: Execute) -> None:
        """Start a process at the other end of a stream that was opened.

        Raises:
            Error: it cannot be started.
        """
        if self._workdir is None:
            raise exception.ConflictError("the container is only starting", hint="try again in a moment")
        try:
            subjects.token(order.stream)
        except ValueError as error:
            raise exception.InvalidError(str(error)) from error
        if self._processes >= MAX_SESSIONS:
            raise exception.ResourceExhaustedError(f"the container has {MAX_SESSIONS} processes already")
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._processes += 1  # before anything is awaited: many orders may come at once
        self._node.spawn(self._run(order, started), f"process in {self._container}")
        await started

    async def _run(self, order: Execute, started: "asyncio.Future[None]") -> None:
        try:
            async with (
                on_bus(self._node.bus, self._pool.workspace, order.stream, is_client=False) as outer,
                self._stream() as (number, inner),
            ):
                variables = {**self._variables, **order.variables}
                size = (order.rows, order.columns) if order.rows else None
                workdir = order.workdir or self._workdir
                arguments = list(order.arguments)
                self._init.send((ToInit.EXECUTE, number, arguments, variables, workdir, size))
                started.set_result(None)
                outer.open()
                inner.open()
                await join(outer, inner)
        except Exception as error:
            if not started.done():
                started.set_exception(error)
            elif not isinstance(error, exception.Error):
                raise
        finally:
            self._processes -= 1

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[tuple[int, Duplex]]:
        """Hold the inner end of a new stream; whatever is at its other end goes with it."""
        if self._ended:
            raise exception.ServiceError("the container has ended")
        self._numbers += 1
        number = self._numbers
        inner = self._inner[number] = Duplex(
            lambda frame: self._init.send((ToInit.STREAM, number, frame)),
            window=WINDOW,
            piece=PIECE_TO_CONTAINER,
            beat=0,
        )
        try:
            yield number, inner
        finally:
            del self._inner[number]
            inner.close()
            self._init.send((ToInit.HANG_UP, number))

    # --- the runner's terminal

    def ask(self) -> None:
        """Fetch the caller's terminal for an input; the runner is answered."""
        if not self._pool.spec.interactive or self._asking:
            raise ValueError("this container may not ask for a terminal now")
        self._asking = True
        self._node.spawn(self._lend(), f"terminal of {self._container}")

    def release(self) -> None:
        """Give the terminal back, once all output has got there."""
        if self._terminal is not None:
            self._terminal.end()

    async def _lend(self) -> None:
        stream = ids.new(ids.STREAM)
        try:
            async with on_bus(self._node.bus, self._pool.workspace, stream, is_client=False) as outer:
                rows, columns, term = await self._ask_caller(stream, outer)
                async with self._stream() as (number, inner):
                    device = await self._device(number, rows, columns)
                    self._terminal = inner
                    self._runner.send((ToRunner.TERMINAL, device, term))
                    inner.open()
                    await join(outer, inner)
        except exception.Error as error:
            data = failure.from_text(type(error).__name__, str(error))
            self._runner.send((ToRunner.TERMINAL, "", data))
        finally:
            self._terminal, self._asking = None, False
            self._runner.send((ToRunner.RELEASED,))

    async def _ask_caller(self, stream: str, outer: Duplex) -> tuple[int, int, str]:
        """Return size and type of the caller's terminal, once it is lent."""
        lent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def on_control(_name: str, value: Any) -> None:
            if not lent.done():
                lent.set_result(value)

        def on_break(error: exception.Error) -> None:
            if not lent.done():
                lent.set_exception(error)

        outer.on_control, outer.on_break = on_control, on_break
        asked = AskTerminal(stream, self._container, self._pool.spec.name)
        subject = subjects.terminal(self._pool.workspace, self._pool.app_id)
        try:
            self._node.bus.publish(subject, coding.encode(asked))
            async with asyncio.timeout(TERMINAL_TIMEOUT):
                rows, columns, term = await lent
            outer.open()
            return int(rows), int(columns), str(term)
        except TimeoutError as error:
            message = "the terminal of the interactive run does not answer"
            raise exception.InteractiveTimeoutError(message) from error
        except (BusError, ValueError, TypeError) as error:
            raise exception.ServiceError(f"the caller cannot be asked for its terminal: {error}") from error

    async def _device(self, number: int, rows: int, columns: int) -> str:
        """Return the device of a terminal that init makes for the runner."""
        device: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._devices[number] = device
        try:
            self._init.send((ToInit.TERMINAL, number, rows, columns))
            async with asyncio.timeout(TERMINAL_TIMEOUT):
                return await device
        except TimeoutError:
            raise exception.InteractiveTimeoutError("the container makes no terminal") from None
        finally:
            del self._devices[number]
