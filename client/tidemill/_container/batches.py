"""Batches: inputs of several calls that a function gets at once, and the results that each caller gets."""

import inspect
from collections.abc import Callable
from typing import Any

from tidemill import exception
from tidemill._container.outcomes import Outcome, Outcomes
from tidemill._container.work import Chunk, Task
from tidemill._runtime import current_input
from tidemill._wire import payload

Bound = inspect.BoundArguments


class Batch:
    """Chunks of one input each that run together."""

    __slots__ = ("chunks", "method")

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks
        self.method = chunks[0].method

    def start(self) -> list[Task]:
        """Take the inputs that were not taken back."""
        return [task for chunk in self.chunks if (task := chunk.start()) is not None]


class Arguments:
    """The arguments of a batch, and what became of inputs whose own cannot be read."""

    def __init__(self, function: Callable[..., Any], outcomes: Outcomes) -> None:
        self._signature = inspect.signature(function)
        self._outcomes = outcomes
        self._bound: list[Bound] = []
        self.tasks: list[Task] = []  # those that take part
        self.ended: dict[tuple[int, int], Outcome] = {}

    def read(self, tasks: list[Task]) -> None:
        """Read the arguments of inputs. One that cannot be read, or called so, fails alone."""
        for task in tasks:
            current_input.set(task.now)
            try:
                args, kwargs = payload.decode(*task.payload)
                self._bound.append(self._signature.bind(*args, **kwargs))
            except BaseException as error:
                self.ended[task.key] = self._outcomes.failure(error)
            else:
                self.tasks.append(task)

    def together(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return arguments with a list for each one."""
        whole = self._signature.bind_partial()
        for name in self._bound[0].arguments:
            whole.arguments[name] = [bound.arguments[name] for bound in self._bound]
        return whole.args, whole.kwargs

    def split(self, values: Any) -> dict[tuple[int, int], Outcome]:
        """Return the outcome of each input, by what the function returned."""
        if not isinstance(values, list):
            raise exception.InvalidError(
                f"a batched function has to return a list, not {type(values).__name__}",
                hint="a result for each element of its arguments, in their order",
            )
        if len(values) != len(self.tasks):
            raise exception.InvalidError(
                f"a batched function got {len(self.tasks)} inputs and returned {len(values)} results"
            )
        for task, value in zip(self.tasks, values, strict=True):
            current_input.set(task.now)
            self.ended[task.key] = self._outcomes.success(value)
        return self.ended

    def all_with(self, outcome: Outcome) -> dict[tuple[int, int], Outcome]:
        """Return the same outcome for all inputs that took part."""
        return {**self.ended, **dict.fromkeys((task.key for task in self.tasks), outcome)}
