"""Objects, hooks, inputs side by side and batches, as a runner runs them."""

import signal
from pathlib import Path
from typing import Any

import pytest
from container_harness import CALL, Container, Start

from tidemill._container.frames import FromRunner, ToInit, ToRunner
from tidemill._wire import payload
from tidemill._wire.messages import Status
from tidemill.exception import InvalidError, NotFoundError

MODEL = """
    import asyncio, sys, threading
    import tidemill

    app = tidemill.App("models")

    class Base:
        @tidemill.enter()
        def first(self):
            self.log = ["first"]

    @app.cls()
    class Model(Base):
        size: str = tidemill.parameter(default="small")

        @tidemill.enter()
        async def second(self):
            self.loop = asyncio.get_running_loop()
            self.log.append(self.size)

        @tidemill.method()
        def read(self):
            return self.log, threading.current_thread() is threading.main_thread()

        @tidemill.method()
        async def on_loop(self):
            return asyncio.get_running_loop() is self.loop

        @tidemill.method()
        def waits(self):
            print("waits", flush=True)
            threading.Event().wait()

        @tidemill.exit()
        async def leave(self):
            print("left on the loop", asyncio.get_running_loop() is self.loop)

        @tidemill.exit()
        def fails(self):
            raise ValueError("at the end")

        @tidemill.exit()
        def last(self):
            print("left at last")
"""


def call(container: Container, method: str, *args: Any) -> Any:
    return container.result(give(container, method, *args))


def give(container: Container, method: str, *args: Any) -> int:
    container._chunks += 1
    encoded = [payload.encode_call(args, {})]
    container.send(ToRunner.CHUNK, container._chunks, CALL, [0], 0, encoded, "", "", False, method)
    return container._chunks


def give_batch(container: Container, *inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> list[int]:
    numbers = list(range(container._chunks + 1, container._chunks + 1 + len(inputs)))
    container._chunks += len(inputs)
    chunks = [
        [number, CALL, [0], 0, [payload.encode_call(*given)], "", "", False, ""]
        for number, given in zip(numbers, inputs, strict=True)
    ]
    container.send(ToRunner.BATCH, chunks)
    return numbers


def test_an_object_lives_from_its_enter_hooks_to_its_exit_hooks(start: Start) -> None:
    container = start(MODEL, "Model", parameters={"size": "large"})
    assert call(container, "read") == (["first", "large"], True)
    assert call(container, "on_loop")
    with pytest.raises(NotFoundError, match="no method 'nothing'"):
        call(container, "nothing")
    assert container.stop() == 0
    out = container.logged()[""]
    assert "left on the loop True" in out
    assert out.endswith("left at last\n")
    assert "ValueError: at the end" in container.logged(2)[""]


def test_a_stop_signal_gives_the_input_back_and_runs_the_exit_hooks(start: Start) -> None:
    container = start(MODEL, "Model", parameters={})
    number = give(container, "waits")
    container.frames.wait(lambda frames: "waits" in "".join(container.logged().values()))
    container.order(ToInit.SIGNAL, signal.SIGTERM)
    container.frames.first(FromRunner.STOPPED)
    assert container.exit_status() == 0
    assert container.returned(number) == [0]
    assert "left at last" in container.logged()[""]


HOOKS = """
    import os, sys, time
    import tidemill

    class Slow:
        @tidemill.enter()
        def begin(self):
            print("entering", flush=True)
            while os.path.exists({entering!r}):
                time.sleep(0.01)

        @tidemill.method()
        def works(self):
            return 1

        @tidemill.exit()
        def leave(self):
            print("leaving", flush=True)
            while os.path.exists({leaving!r}):
                time.sleep(0.01)
            print("left", flush=True)
"""


def printed(container: Container) -> str:
    return "".join(container.logged().values())


def test_a_signal_during_an_enter_hook_ends_the_container_in_order(start: Start, tmp_path: Path) -> None:
    (tmp_path / "entering").touch()
    source = HOOKS.format(entering=str(tmp_path / "entering"), leaving=str(tmp_path / "leaving"))
    container = start.prepare(source)
    fields = {"container": "co-1", "module": "hello", "qualname": "Slow", "parameters": {}}
    container.send(ToRunner.START, fields | {"sources": [str(start._folder)]})
    container.frames.wait(lambda _frames: "entering" in printed(container))
    container.order(ToInit.SIGNAL, signal.SIGINT)
    container.frames.first(FromRunner.STOPPED)
    assert container.exit_status() == 0
    assert "Traceback" not in "".join(container.logged(2).values())


def test_a_signal_during_an_exit_hook_lets_it_finish(start: Start, tmp_path: Path) -> None:
    (tmp_path / "leaving").touch()
    source = HOOKS.format(entering=str(tmp_path / "entering"), leaving=str(tmp_path / "leaving"))
    container = start(source, "Slow", parameters={})
    assert call(container, "works") == 1
    container.order(ToInit.SIGNAL, signal.SIGTERM)
    container.frames.wait(lambda _frames: "leaving" in printed(container))
    container.order(ToInit.SIGNAL, signal.SIGINT)
    (tmp_path / "leaving").unlink()
    container.frames.first(FromRunner.STOPPED)
    assert container.exit_status() == 0
    assert printed(container).endswith("left\n")


def test_a_signal_after_the_order_to_stop_lets_the_hooks_of_a_loop_finish(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "leaving").touch()
    source = f"""
        import asyncio, os
        import tidemill

        class Slow:
            @tidemill.method()
            async def works(self):
                return 1

            @tidemill.exit()
            async def leave(self):
                print("leaving", flush=True)
                while os.path.exists({str(tmp_path / "leaving")!r}):
                    await asyncio.sleep(0.01)
                print("left", flush=True)
    """
    container = start(source, "Slow", parameters={}, slots=2)
    assert call(container, "works") == 1
    container.send(ToRunner.STOP)
    container.frames.wait(lambda _frames: "leaving" in printed(container))
    container.order(ToInit.SIGNAL, signal.SIGTERM)
    (tmp_path / "leaving").unlink()
    container.frames.first(FromRunner.STOPPED)
    assert container.exit_status() == 0
    assert printed(container).endswith("left\n")


def test_what_an_enter_hook_raises_is_a_failed_start(start: Start) -> None:
    source = """
        import tidemill
        class Broken:
            @tidemill.enter()
            async def fails(self):
                raise FileNotFoundError("the weights")
    """
    with pytest.raises(FileNotFoundError, match="the weights"):
        start(source, "Broken", parameters={})


SIDE_BY_SIDE = """
    import asyncio, sys, threading, tidemill

    everybody = threading.Barrier(3)

    def sync(x):
        everybody.wait()
        sys.stdout.write(f"met {x}\\n")  # at once: what `print` writes is torn by that of other threads
        return x, tidemill.current_input_id(), threading.current_thread() is threading.main_thread()

    def pieces(n):
        everybody.wait()
        yield from range(n)

    arrived = []

    async def tasks(x):
        arrived.append(x)
        while len(arrived) < 3:
            await asyncio.sleep(0.001)
        if x == "stay":
            print("staying", flush=True)
            await asyncio.Event().wait()
        return x
"""


def test_synchronous_inputs_run_side_by_side_in_threads(start: Start) -> None:
    container = start(SIDE_BY_SIDE, "sync", slots=3)
    numbers = [container.give([(x,)]) for x in range(3)]
    results = [container.result(number) for number in numbers]
    assert [(x, main) for x, _, main in results] == [(0, False), (1, False), (2, False)]
    assert sorted(container.logged()[results[0][1]].splitlines()) == ["met 0", "met 1", "met 2"]
    assert container.stop() == 0


def test_generators_run_side_by_side(start: Start) -> None:
    container = start(SIDE_BY_SIDE, "pieces", slots=3, is_generator=True)
    numbers = [container.give([(n,)]) for n in (1, 2, 3)]
    assert [container.result(number) for number in numbers] == [1, 2, 3]
    assert [container.pieces(number) for number in numbers] == [[0], [0, 1], [0, 1, 2]]


def test_only_the_cancelled_one_of_several_async_inputs_ends(start: Start) -> None:
    container = start(SIDE_BY_SIDE, "tasks", slots=3)
    stays, *others = [container.give([(x,)]) for x in ("stay", 1, 2)]
    assert [container.result(number) for number in others] == [1, 2]
    container.send(ToRunner.CANCEL, stays, 0)
    assert container.output(stays)[0] == Status.CANCELLED
    assert container.result(container.give([(4,)])) == 4
    assert container.stop() == 0


def test_a_stop_signal_gives_back_all_that_runs_side_by_side(start: Start) -> None:
    container = start(SIDE_BY_SIDE, "tasks", slots=3)
    numbers = [container.give([("stay",)]) for _ in range(3)]
    container.frames.wait(lambda frames: "".join(container.logged().values()).count("staying") == 3)
    container.order(ToInit.SIGNAL, signal.SIGTERM)
    container.frames.first(FromRunner.STOPPED)
    assert [container.returned(number) for number in numbers] == [[0]] * 3


BATCHED = """
    import threading

    def add(x, y):
        if 13 in x:
            raise ValueError("unlucky")
        if 14 in x:
            return [0]
        if 15 in x:
            return None
        return [f"{len(x)}: {a + b}" for a, b in zip(x, y)]

    async def add_async(x, y):
        return add(x, y)
"""
FINE = [((1, 2), {}), ((3,), {"y": 4}), ((), {"y": 6, "x": 5})]


@pytest.mark.parametrize("function", ["add", "add_async"])
def test_a_batch_is_split_over_its_callers(start: Start, function: str) -> None:
    container = start(BATCHED, function)
    assert [container.result(one) for one in give_batch(container, *FINE)] == ["3: 3", "3: 7", "3: 11"]
    good, bad = give_batch(container, ((1, 2), {}), ((1,), {}))
    assert container.result(good) == "1: 3"
    with pytest.raises(TypeError, match="missing a required argument: 'y'"):
        container.result(bad)
    for number in give_batch(container, ((13, 2), {}), ((1, 2), {})):
        with pytest.raises(ValueError, match="unlucky"):
            container.result(number)
    for number in give_batch(container, ((14, 2), {}), ((1, 2), {})):
        with pytest.raises(InvalidError, match="got 2 inputs and returned 1 results"):
            container.result(number)
    for number in give_batch(container, ((15, 2), {})):
        with pytest.raises(InvalidError, match="has to return a list, not NoneType"):
            container.result(number)
    assert container.stop() == 0


def test_code_of_the_user_says_how_many_inputs_its_container_takes(start: Start) -> None:
    source = """
        from tidemill import experimental

        def f(n):
            experimental.set_local_input_concurrency(n)
            return experimental.get_local_input_concurrency()

        def g():
            experimental.stop_fetching_inputs()
    """
    container = start(source, slots=4)
    assert [container.call(2), container.call(9)] == [2, 4]
    assert [frame[1] for frame in container.frames.of(FromRunner.LIMIT)] == [2, 4]
