"""Running inputs of a synchronous function, one after the other, in the main thread."""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tidemill._container.credit import PATIENCE, Credit
from tidemill._container.guard import Guard, Key
from tidemill._container.outbox import Outbox
from tidemill._container.outcomes import NotTransported, Outcome, Outcomes, cancelled
from tidemill._container.tags import Tagger
from tidemill._container.targets import Program
from tidemill._container.terminal import Terminal
from tidemill._container.work import NOTHING, Chunk, Task
from tidemill._runtime import current_input
from tidemill._wire import payload
from tidemill.exception import InputCancellation

if TYPE_CHECKING:
    from tidemill._container.batches import Arguments, Batch
    from tidemill._container.coroutines import LateLoop

A = TypeVar("A")
T = TypeVar("T")


class Parts(NamedTuple):
    """What either way of executing works with."""

    program: Program
    outcomes: Outcomes
    outbox: Outbox
    tagger: Tagger
    terminal: Terminal


class Execution:
    """Runs chunks. `run` and `interrupt` belong to the main thread, the rest to the reading one."""

    def __init__(self, parts: Parts, guard: Guard) -> None:
        self._program, self._outcomes, self._outbox, self._tagger, self._terminal = parts
        self._target = self._program.target("")
        self._guard = guard
        self._credit: Credit | None = None
        self._running: Key | None = None
        self._loop: LateLoop | None = None

    # --- the main thread

    def run(self, chunk: "Chunk | Batch") -> list[Key]:
        """Run what has not started of a chunk; return the input that a stop signal interrupted, if any."""
        if not isinstance(chunk, Chunk):
            return self._run_batch(chunk)
        outbox, clock = self._outbox, time.perf_counter
        self._target = self._program.target(chunk.method)
        outbox.running = chunk.following()
        began = clock()
        while not self._guard.interrupted and (task := chunk.start()) is not None:
            self._running = task.key
            self._tagger.change(task.now.input_id)
            outcome = copy_context().run(self._attempt, task)
            if self._terminal.is_attached:
                self._terminal.release()
            if outcome is None:
                return [task.key]
            ended = clock()
            outbox.running = following = chunk.following()
            outbox.output(*task.key, *outcome, seconds=ended - began, last=following is NOTHING)
            began = ended
        self._guard.forget(chunk.number)
        outbox.flush()  # what was to come after the last result may have been taken back meanwhile
        return []

    def _attempt(self, task: Task) -> Outcome | None:
        """Return how an input ended, or None when a stop signal interrupted it."""
        current_input.set(task.now)
        return self._guarded(task.key, self._execute, task)

    def _execute(self, task: Task) -> Outcome:
        args, kwargs = payload.decode(*task.payload)
        if not self._target.is_generator:
            return self._outcomes.success(self._value(task.key, args, kwargs))
        return (self._collect if task.collect else self._stream)(task.key, args, kwargs)

    def _guarded(self, key: Key, run: Callable[[A], T], argument: A) -> T | Outcome | None:
        """Return what code of the user's comes to, or the outcome of what it raises.

        None says that a stop signal interrupted it.
        """
        guard = self._guard
        try:
            return run(argument)
        except InputCancellation as error:
            return cancelled() if guard.stopped == key else self._outcomes.failure(error)
        except (KeyboardInterrupt, GeneratorExit) as error:
            if guard.interrupted:
                return None
            if self._terminal.is_attached:  # somebody has pressed Ctrl-C there: nothing else is to end
                return self._outcomes.failure(error)
            raise NotTransported from error
        except BaseException as error:
            return self._outcomes.failure(error)
        finally:
            self._running = None

    def _value(self, key: Key, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        guard = self._guard
        try:
            guard.arm(key)
            value = self._target.function(*args, **kwargs)
            if type(value) is CoroutineType:  # of a decorator's making: nothing else shows it before
                value = self._late_loop().finish(value)
        finally:
            guard.active = None
        return value

    # --- batches

    def _run_batch(self, batch: "Batch") -> list[Key]:
        """Run the inputs of a batch together; return all of them when a stop signal interrupted it."""
        from tidemill._container.batches import Arguments

        self._target = self._program.target(batch.method)
        tasks = batch.start()
        if not tasks:
            return []
        self._tagger.change(tasks[0].now.input_id)
        began = time.perf_counter()
        arguments = Arguments(self._target.function, self._outcomes)
        ended = copy_context().run(self._attempt_batch, tasks, arguments)
        if ended is None:
            return [task.key for task in tasks]
        seconds = (time.perf_counter() - began) / len(tasks)
        for task in tasks:
            self._outbox.output(*task.key, *ended[task.key], seconds=seconds, last=task is tasks[-1])
        return []

    def _attempt_batch(self, tasks: list[Task], arguments: "Arguments") -> "dict[Key, Outcome] | None":
        arguments.read(tasks)
        if not arguments.tasks:
            return arguments.ended
        current_input.set(tasks[0].now)
        ended = self._guarded(tasks[0].key, self._execute_batch, arguments)
        if isinstance(ended, tuple):  # the same for all
            return arguments.all_with(ended)
        return ended

    def _execute_batch(self, arguments: "Arguments") -> dict[Key, Outcome]:
        args, kwargs = arguments.together()
        return arguments.split(self._value(arguments.tasks[0].key, args, kwargs))

    # --- generators

    def _stream(self, key: Key, args: list[Any], kwargs: dict[str, Any]) -> Outcome:
        guard, credit = self._guard, Credit()
        self._credit = credit
        pieces: Iterator[Any] | None = None
        try:
            guard.arm(key)
            made = self._target.function(*args, **kwargs)
            pieces = self._late_loop().iterate(made) if hasattr(made, "__aiter__") else iter(made)
            while True:
                guard.arm(key)
                try:
                    piece = next(pieces)
                except StopIteration:
                    return self._outcomes.done(credit.pieces)
                finally:
                    guard.active = None
                self._send_piece(key, credit, piece)
        finally:
            guard.active = None
            self._credit = None
            close = getattr(pieces, "close", None)
            if close is not None:
                close()

    def _collect(self, key: Key, args: list[Any], kwargs: dict[str, Any]) -> Outcome:
        guard = self._guard
        try:
            guard.arm(key)
            made = self._target.function(*args, **kwargs)
            pieces = list(self._late_loop().iterate(made) if hasattr(made, "__aiter__") else made)
        finally:
            guard.active = None
        return self._outcomes.success(pieces)

    def _send_piece(self, key: Key, credit: Credit, piece: object) -> None:
        encoded = self._outcomes.encode(piece)
        if not credit.is_open():
            self._outbox.flush()
            until = time.monotonic() + PATIENCE
            while not credit.is_open():
                credit.wait(until)
                if self._guard.is_wanted(key):
                    self._guard.arm(key)  # raises
        self._outbox.piece(*key, credit.take(len(encoded[1])), encoded)

    def _late_loop(self) -> "LateLoop":
        if self._loop is None:
            from tidemill._container.coroutines import LateLoop

            self._loop = LateLoop()
        return self._loop

    def finish_hook(self, hook: Awaitable[Any]) -> None:
        """Await what an async hook returned, on the loop that async methods run on."""
        self._late_loop().finish(hook)

    def interrupt(self) -> None:
        """Have a generator that waits for credit see that it is to stop."""
        credit = self._credit
        if credit is not None:
            credit.ring()

    def close(self) -> None:
        """End the loop, if one was needed."""
        if self._loop is not None:
            self._loop.close()

    # --- the reading thread

    def wake(self) -> None:
        """Do nothing: the main thread waits at the inbox itself."""

    def cancel(self, key: Key) -> None:
        """Stop an input that has started. If it has ended meanwhile, nothing happens."""
        self._guard.want(key)
        if self._running == key:
            self._guard.signal()
            self.interrupt()

    def grant(self, key: Key, pieces: int, size: int) -> None:
        """Let a generator go on."""
        credit = self._credit
        if credit is not None and self._running == key:
            credit.grant(pieces, size)
