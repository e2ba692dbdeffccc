"""Running inputs of an async function, on one event loop that lives as long as the container.

The loop owns the main thread. Nothing of ours is a task on it, so that user code that cancels all tasks
it can find stops its own input and nothing else: inputs are started and finished by callbacks.
"""

import asyncio
import time
from _queue import Empty, SimpleQueue
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from tidemill._container.batches import Arguments, Batch
from tidemill._container.credit import PATIENCE, Credit
from tidemill._container.execution import Parts
from tidemill._container.guard import Key
from tidemill._container.outcomes import NotTransported, Outcome, cancelled
from tidemill._container.targets import Target
from tidemill._container.work import Chunk, Task
from tidemill._runtime import current_input
from tidemill._wire import payload
from tidemill._wire.messages import Status

T = TypeVar("T")

FAREWELL = 5.0  # seconds that the user's own tasks have to end when the container does


class AsyncExecution:
    """Runs chunks on a loop. What others than the main thread may call stands under its own heading."""

    def __init__(
        self,
        parts: Parts,
        inbox: "SimpleQueue[Chunk | Batch | None]",
        on_finished: "Callable[[Chunk | Batch], None]",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._program, self._outcomes, self._outbox, self._tagger, self._terminal = parts
        self._inbox = inbox
        self._on_finished = on_finished
        self._loop = loop or asyncio.new_event_loop()
        self._chunk: Chunk | Batch | None = None
        self._task: asyncio.Task[Any] | None = None
        self._running: Key | None = None
        self._credits: dict[Key, Credit] = {}
        self._began = 0.0
        self._cancelled: set[Key] = set()
        self._interrupted = False
        self._key_pressed = False  # Ctrl-C, while the input awaited something
        self._fatal: BaseException | None = None
        self._returned: list[Key] = []
        self._finished = False

    # --- the main thread

    def serve(self) -> list[Key]:
        """Run what comes until None comes; return what a stop signal interrupted."""
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._go_on)
        while not self._finished:
            # What ends a process ends the loop too when a task of the user's own raises it.
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()
        return self.outcome()

    def outcome(self) -> list[Key]:
        """Return what a stop signal interrupted, or raise what has ended everything."""
        if self._fatal is not None:
            raise self._fatal
        return self._returned

    def finish_hook(self, hook: Awaitable[Any]) -> None:
        """Await what an async hook returned, on the loop that inputs run on."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.ensure_future(hook, loop=self._loop))

    def close(self) -> None:
        """End what user code has left on the loop, and the loop."""
        end_loop(self._loop)

    def _go_on(self) -> None:
        """Start the next input, if none runs and there is one."""
        while self._task is None and not self._finished:
            if self._chunk is None:
                try:
                    self._chunk = self._inbox.get_nowait()
                except Empty:
                    return
                if self._chunk is None:
                    self._finish()
                    return
            if isinstance(self._chunk, Chunk):
                task = None if self._interrupted else self._chunk.start()
                if task is None:
                    self._leave_chunk()
                else:
                    self._start(task, self._attempt(task), self._on_done)
            else:
                self._start_batch(self._chunk)

    def _start(
        self, task: Task, attempt: Coroutine[Any, Any, Any], on_done: "Callable[[asyncio.Task[Any]], None]"
    ) -> None:
        self._running = self._outbox.running = task.key
        self._tagger.change(task.now.input_id)
        self._began = time.perf_counter()
        context = copy_context()
        context.run(current_input.set, task.now)
        self._task = self._loop.create_task(attempt, context=context)
        self._task.add_done_callback(on_done)
        if task.key in self._cancelled:
            self._task.cancel()

    def _outcome_of(self, task: "asyncio.Task[Any]") -> Any:
        """Return what an attempt came to, or None where it has ended everything."""
        try:
            return task.result()
        except asyncio.CancelledError:  # before its first step
            return cancelled()
        except BaseException as error:
            self._fatal = error
            self._finish()
            return None

    def _on_done(self, task: "asyncio.Task[Outcome]") -> None:
        chunk, key = self._chunk, self._running
        assert isinstance(chunk, Chunk)
        assert key is not None
        self._task = self._running = None
        self._terminal.release()
        self._outbox.running = chunk.following()
        outcome = self._outcome_of(task)
        if outcome is None:
            return
        if self._interrupted and outcome[0] == Status.CANCELLED:
            self._returned.append(key)  # the chunk is not forgotten: what is left of it is given back
        else:
            seconds = time.perf_counter() - self._began
            self._outbox.output(*key, *outcome, seconds=seconds, last=not chunk.waiting)
        self._go_on()

    def _leave_chunk(self) -> None:
        chunk, self._chunk = self._chunk, None
        assert chunk is not None
        self._outbox.flush()
        self._cancelled.clear()
        if not self._interrupted:
            self._on_finished(chunk)
        if self._inbox.empty():
            self._tagger.change("")

    def _finish(self) -> None:
        self._finished = True
        self._loop.stop()

    # --- a batch

    def _start_batch(self, batch: Batch) -> None:
        tasks = [] if self._interrupted else batch.start()
        if not tasks:
            self._leave_chunk()
            return
        arguments = Arguments(self._program.target(batch.method).function, self._outcomes)
        on_done = partial(self._on_batch_done, tasks, arguments)
        self._start(tasks[0], self._attempt_batch(batch, tasks, arguments), on_done)

    async def _attempt_batch(self, batch: Batch, tasks: list[Task], arguments: Arguments) -> Outcome | None:
        """Return the outcome that all inputs share, if they do; `arguments` has those of each."""
        arguments.read(tasks)
        if not arguments.tasks:
            return None
        current_input.set(tasks[0].now)

        async def run() -> None:
            args, kwargs = arguments.together()
            arguments.split(await self._call(self._program.target(batch.method), args, kwargs))

        return await self._guarded(tasks[0].key, run())

    def _on_batch_done(
        self, tasks: list[Task], arguments: Arguments, task: "asyncio.Task[Outcome | None]"
    ) -> None:
        self._task = self._running = None
        outcome = self._outcome_of(task)
        if self._finished:
            return
        if self._interrupted and outcome is not None and outcome[0] == Status.CANCELLED:
            self._returned += [each.key for each in tasks]
        else:
            ended = arguments.ended if outcome is None else arguments.all_with(outcome)
            seconds = (time.perf_counter() - self._began) / len(tasks)
            for each in tasks:
                self._outbox.output(*each.key, *ended[each.key], seconds=seconds, last=each is tasks[-1])
        self._go_on()

    # --- one input

    async def _attempt(self, task: Task) -> Outcome:
        return await self._guarded(task.key, self._execute(task))

    async def _guarded(self, key: Key, attempt: "Coroutine[Any, Any, T]") -> "T | Outcome":
        """Return what an attempt comes to, or the outcome of what it raises."""
        try:
            return await attempt
        except asyncio.CancelledError as error:
            if key in self._cancelled or self._interrupted:
                return cancelled()
            pressed, self._key_pressed = self._key_pressed, False
            return self._outcomes.failure(KeyboardInterrupt() if pressed else error)
        except (KeyboardInterrupt, GeneratorExit) as error:
            if self._terminal.is_attached:  # somebody has pressed Ctrl-C there: nothing else is to end
                return self._outcomes.failure(error)
            # As it is, it would stop the loop in the middle of everything.
            raise NotTransported from error
        except BaseException as error:
            return self._outcomes.failure(error)

    async def _execute(self, task: Task) -> Outcome:
        args, kwargs = payload.decode(*task.payload)
        target = self._program.target(task.method)
        if not target.is_generator:
            return self._outcomes.success(await self._call(target, args, kwargs))
        if task.collect:
            return await self._collect(target, args, kwargs)
        return await self._stream(target, task.key, args, kwargs)

    async def _call(self, target: Target, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        value = target.function(*args, **kwargs)
        if hasattr(value, "__await__"):
            value = await value
        return value

    def _each(self, target: Target, pieces: Any) -> AsyncIterator[Any]:  # noqa: ARG002 - of others it matters
        return _as_async(pieces)

    async def _stream(self, target: Target, key: Key, args: list[Any], kwargs: dict[str, Any]) -> Outcome:
        pieces = target.function(*args, **kwargs)
        if hasattr(pieces, "__await__"):
            pieces = await pieces
        credit = self._credits[key] = Credit()
        try:
            async for piece in self._each(target, pieces):
                encoded = self._outcomes.encode(piece)
                if not credit.is_open():
                    self._outbox.flush()
                    until = time.monotonic() + PATIENCE
                    while not credit.is_open():
                        await credit.wait_on_loop(until)
                self._outbox.piece(*key, credit.take(len(encoded[1])), encoded)
        finally:
            del self._credits[key]
            await _close(pieces)
        return self._outcomes.done(credit.pieces)

    async def _collect(self, target: Target, args: list[Any], kwargs: dict[str, Any]) -> Outcome:
        made = target.function(*args, **kwargs)
        if hasattr(made, "__await__"):
            made = await made
        try:
            pieces = [piece async for piece in self._each(target, made)]
        finally:
            await _close(made)
        return self._outcomes.success(pieces)

    def on_key(self) -> None:
        """Interrupt the user's code, for a Ctrl-C at its terminal: where it stands, or where it awaits."""
        if asyncio.current_task(self._loop) is not None:
            raise KeyboardInterrupt
        if self._task is not None:
            self._key_pressed = True
            self._from_outside(self._task.cancel)

    # --- the reading thread

    def wake(self) -> None:
        """Look into the inbox."""
        self._from_outside(self._go_on)

    def cancel(self, key: Key) -> None:
        """Stop an input that has started. If it has ended meanwhile, nothing happens."""
        self._from_outside(self._cancel, key)

    def interrupt(self) -> None:
        """Stop the input that runs, and start no other. Also called by a signal's handler."""
        self._interrupted = True
        self._from_outside(self._cancel_running)
        self._from_outside(self._go_on)

    def grant(self, key: Key, pieces: int, size: int) -> None:
        """Let a generator go on."""
        credit = self._credits.get(key)
        if credit is not None:
            credit.grant(pieces, size)
            self._from_outside(credit.wake_on_loop)

    def _from_outside(self, callback: Callable[..., object], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the container is ending
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _cancel(self, key: Key) -> None:
        chunk = self._chunk
        if isinstance(chunk, Batch):
            self._cancel_batch(chunk, key)
        elif chunk is not None and chunk.number == key[0]:
            self._cancelled.add(key)
            if self._running == key:
                self._cancel_running()

    def _cancel_batch(self, batch: Batch, key: Key) -> None:
        """Stop a batch when all of its inputs are to stop."""
        self._cancelled.add(key)
        if {chunk.number for chunk in batch.chunks} <= {number for number, _ in self._cancelled}:
            self._cancel_running()

    def _cancel_running(self) -> None:
        if self._task is not None:
            self._task.cancel()


class LateLoop:
    """A loop for a function that does not look async, and then returns something that is."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        """End what user code has left on the loop, and the loop."""
        end_loop(self._loop)

    def finish(self, awaitable: Awaitable[Any]) -> Any:
        """Return what a coroutine returns."""
        task = asyncio.ensure_future(awaitable, loop=self._loop)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # a cancellation was raised in the loop itself
                task.cancel()
                with suppress(asyncio.CancelledError):
                    self._loop.run_until_complete(task)
            raise

    def iterate(self, pieces: AsyncIterator[Any]) -> Iterator[Any]:
        """Yield what an async iterable yields."""
        iterator = aiter(pieces)
        try:
            while True:
                try:
                    piece = self.finish(_next(iterator))
                except StopAsyncIteration:
                    return
                yield piece
        finally:
            self.finish(_close(iterator))


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator)


async def _as_async(pieces: Any) -> AsyncIterator[Any]:
    if hasattr(pieces, "__aiter__"):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


async def _close(pieces: Any) -> None:
    """Close a generator of either kind, so that its `finally` runs now."""
    if hasattr(pieces, "aclose"):
        await pieces.aclose()
    elif hasattr(pieces, "close"):
        pieces.close()


def end_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that are left on a loop, give them a little time, and close it."""

    async def end() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=FAREWELL)
        await loop.shutdown_asyncgens()

    with suppress(BaseException):
        loop.run_until_complete(end())
    loop.close()
