"""Running many inputs at once: async ones as tasks of one event loop, synchronous ones in threads.

How many there are at once is the worker's business: what comes is started.
"""

import asyncio
from _queue import Empty, SimpleQueue
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from time import perf_counter
from typing import Any

from tidemill._container.batches import Batch
from tidemill._container.coroutines import AsyncExecution
from tidemill._container.execution import Parts
from tidemill._container.guard import Key
from tidemill._container.outcomes import Outcome
from tidemill._container.targets import Target
from tidemill._container.work import Chunk, Task
from tidemill._partial import MAX_INPUTS
from tidemill._runtime import current_input
from tidemill._wire.messages import Status

_END = object()


class ConcurrentExecution(AsyncExecution):
    """Runs chunks on a loop, all that come at once."""

    _ending = False
    _threads: ThreadPoolExecutor | None = None

    def __init__(
        self,
        parts: Parts,
        inbox: "SimpleQueue[Chunk | Batch | None]",
        on_finished: "Callable[[Chunk | Batch], None]",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(parts, inbox, on_finished, loop)
        self._tasks: dict[Key, asyncio.Task[Outcome]] = {}

    # --- beside others, on a loop that is theirs

    def take(self, chunk: Chunk | None) -> None:
        """Run one more chunk; None tells that there is no more."""
        self._inbox.put(chunk)
        self._go_on()

    @property
    def is_over(self) -> bool:
        """Whether all has run, and no more comes."""
        return self._finished

    @property
    def has_failed(self) -> bool:
        """Whether an input has ended everything."""
        return self._fatal is not None

    # --- the main thread

    def _go_on(self) -> None:
        while not self._finished and not self._ending:
            try:
                chunk = self._inbox.get_nowait()
            except Empty:
                break
            if chunk is None:
                self._ending = True
                break
            assert isinstance(chunk, Chunk)  # a batch is never one of several at once
            while not self._interrupted and (task := chunk.start()) is not None:
                self._begin(chunk, task)
        if self._ending and not self._tasks and not self._finished:  # hooks that run then use the loop, too
            self._finish()

    def _begin(self, chunk: Chunk, task: Task) -> None:
        context = copy_context()
        context.run(current_input.set, task.now)
        made = self._tasks[task.key] = self._loop.create_task(self._attempt(task), context=context)
        made.add_done_callback(partial(self._on_end, chunk, task.key, perf_counter()))

    def _on_end(self, chunk: Chunk, key: Key, began: float, task: "asyncio.Task[Outcome]") -> None:
        del self._tasks[key]
        outcome = self._outcome_of(task)
        self._cancelled.discard(key)
        if outcome is None:
            return
        if self._interrupted and outcome[0] == Status.CANCELLED:
            self._returned.append(key)
        else:
            self._outbox.output(*key, *outcome, seconds=perf_counter() - began)
            self._on_finished(chunk)
        self._terminal.release()
        self._go_on()

    def _cancel(self, key: Key) -> None:
        if key in self._tasks:
            self._cancelled.add(key)
            self._tasks[key].cancel()

    def _cancel_running(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()

    # --- synchronous code

    async def _call(self, target: Target, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        if target.is_async:
            return await super()._call(target, args, kwargs)
        return await self._in_thread(target.function, *args, **kwargs)

    def _each(self, target: Target, pieces: Any) -> AsyncIterator[Any]:
        if target.is_async or hasattr(pieces, "__aiter__"):
            return super()._each(target, pieces)
        return self._each_in_thread(iter(pieces))

    async def _each_in_thread(self, pieces: Any) -> AsyncIterator[Any]:
        while (piece := await self._in_thread(next, pieces, _END)) is not _END:
            yield piece

    async def _in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(MAX_INPUTS, thread_name_prefix="input")
        call = partial(copy_context().run, function, *args, **kwargs)
        return await self._loop.run_in_executor(self._threads, call)
