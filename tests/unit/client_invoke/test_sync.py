"""One implementation, called in two ways."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import pytest
from waiting import until, wait_until

from tidemill import _loop, _sync, exception

name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    _loop.close()


class Later:
    """A `Pending` over a future."""

    def __init__(self, future: "concurrent.futures.Future[str]") -> None:
        self._future = future

    def result(self) -> str:
        return self._future.result()

    async def wait(self) -> str:
        return await asyncio.wrap_future(self._future)


class Thing:
    """Has every kind of method."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @_sync.method
    async def where(self, suffix: str = "") -> str:
        """Tell the thread."""
        await asyncio.sleep(0)
        return threading.current_thread().name + suffix

    @_sync.method
    async def context(self) -> str:
        return name.get()

    @_sync.method
    async def fail(self, error: BaseException) -> None:
        raise error

    @_sync.method
    async def wait(self) -> None:
        self.log.append("waits")
        try:
            await asyncio.Event().wait()
        finally:
            self.log.append("cancelled")

    @_sync.class_method
    async def kind(cls: type["Thing"]) -> str:
        return cls.__name__

    @_sync.stream
    async def count(self, n: int) -> AsyncGenerator[int, None]:
        task = asyncio.current_task()
        try:
            for x in range(n):
                assert asyncio.current_task() is task
                self.log.append(f"made {x}")
                yield x
        finally:
            assert asyncio.current_task() is task
            self.log.append("closed")

    @_sync.context
    @contextlib.asynccontextmanager
    async def open(self, label: str) -> AsyncIterator[str]:
        task = asyncio.current_task()
        self.log.append("entered")
        try:
            yield label
        except ValueError:
            self.log.append("swallowed")
        finally:
            assert asyncio.current_task() is task
            self.log.append("left")

    @_sync.pending
    def later(self, value: str) -> Later:
        return Later(_loop.submit(asyncio.sleep(0, value)))


class Special(Thing):
    """A subclass."""


def test_a_coroutine_runs_on_the_loop_of_the_sdk_in_both_ways() -> None:
    assert Thing().where("!") == "tidemill-loop!"
    assert asyncio.run(Thing().where.aio(suffix="?")) == "tidemill-loop?"


def test_class_methods_are_bound_to_the_class_that_they_are_called_on() -> None:
    assert Thing.kind() == "Thing"
    assert Special.kind() == "Special"
    assert asyncio.run(Special.kind.aio()) == "Special"


def test_the_documentation_is_there() -> None:
    assert Thing.where.__doc__ == "Tell the thread."


def test_context_variables_are_the_callers() -> None:
    token = name.set("me")
    assert Thing().context() == "me"
    assert asyncio.run(Thing().context.aio()) == "me"
    name.reset(token)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_any_exception_reaches_the_caller_and_the_loop_lives_on(error: BaseException) -> None:
    thing = Thing()
    with pytest.raises(type(error)):
        thing.fail(error)
    with pytest.raises(type(error)):
        asyncio.run(thing.fail.aio(error))
    assert thing.where() == "tidemill-loop"


def test_a_cancelled_await_cancels_the_work() -> None:
    thing = Thing()

    async def main() -> None:
        waiting = asyncio.create_task(thing.wait.aio())
        await until(lambda: thing.log)  # what has not begun has nothing to cancel
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    wait_until(lambda: len(thing.log) > 1)
    assert thing.log == ["waits", "cancelled"]


def test_blocking_in_an_event_loop_warns_and_works() -> None:
    async def main() -> str:
        with pytest.warns(exception.AsyncUsageWarning, match=r"Thing\.where\.aio\(\)"):
            return Thing().where()

    assert asyncio.run(main()) == "tidemill-loop"


def test_a_notebook_has_a_loop_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ipykernel", threading)

    async def cell() -> tuple[str, list[int]]:
        return Thing().where(), list(Thing().count(3))

    assert asyncio.run(cell()) == ("tidemill-loop", [0, 1, 2])


def test_streams_are_iterated_in_both_ways() -> None:
    async def main() -> list[int]:
        return [x async for x in Thing().count.aio(200)]

    assert list(Thing().count(200)) == list(range(200))
    assert asyncio.run(main()) == list(range(200))


def test_a_stream_is_made_only_a_bounded_way_ahead_and_closed_when_it_is_left() -> None:
    thing = Thing()
    for x in thing.count(1_000_000):
        if x == 10:
            break
    gc.collect()
    wait_until(lambda: "closed" in thing.log)
    assert len(thing.log) < 11 + 2 * _sync.WAITING + 3


def test_an_error_in_a_stream_comes_after_its_items() -> None:
    class Broken:
        @_sync.stream
        async def items(self, error: BaseException) -> AsyncGenerator[int, None]:
            yield 1
            raise error

    for error in (ValueError("x"), SystemExit(1)):
        items = Broken().items(error)
        assert next(items) == 1
        with pytest.raises(type(error)):
            next(items)
    assert Thing().where() == "tidemill-loop"


def test_contexts_are_entered_in_both_ways_and_see_exceptions() -> None:
    thing = Thing()
    with thing.open("a") as label:
        assert label == "a"
    with thing.open("b"):
        raise ValueError
    with pytest.raises(KeyError), thing.open("c"):
        raise KeyError
    assert thing.log == ["entered", "left", "entered", "swallowed", "left", "entered", "left"]

    async def main() -> None:
        async with thing.open("d") as label:
            assert label == "d"
        async with thing.open.aio("e"):
            raise ValueError

    asyncio.run(main())
    assert thing.log[-3:] == ["entered", "swallowed", "left"]


def test_a_context_that_cannot_be_entered_raises_why() -> None:
    class Closed:
        @_sync.context
        @contextlib.asynccontextmanager
        async def open(self) -> AsyncIterator[None]:
            raise OSError("closed")
            yield

    with pytest.raises(OSError, match="closed"), Closed().open():
        pass


def test_futures_are_waited_for_in_both_ways() -> None:
    assert Thing().later("x") == "x"
    assert asyncio.run(Thing().later.aio("y")) == "y"


def test_a_blocking_call_on_the_loop_itself_is_refused() -> None:
    class Wrong:
        @_sync.method
        async def outer(self) -> Any:
            return _loop.wait(Thing().where.aio())

    with pytest.raises(RuntimeError, match="wait for itself"):
        Wrong().outer()


def test_calls_of_the_sdk_from_the_sdk_run_where_they_are() -> None:
    class Nested:
        @_sync.method
        async def outer(self) -> str:
            return await Thing().where.aio()

    assert Nested().outer() == "tidemill-loop"


def test_the_loop_closes_what_is_open_and_can_begin_again() -> None:
    closed: list[str] = []

    async def close(label: str) -> None:
        closed.append(label)

    assert Thing().where() == "tidemill-loop"
    _loop.at_exit(lambda: close("first"))
    undo = _loop.at_exit(lambda: close("taken back"))
    _loop.after_exit(lambda: closed.append("afterwards"))
    undo()
    _loop.close()
    assert closed == ["first", "afterwards"]
    assert Thing().where() == "tidemill-loop"
