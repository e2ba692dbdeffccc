"""Inputs of synchronous and asynchronous functions: values, errors, chunks."""

import asyncio
import datetime
import pickle
import time
from pathlib import Path

import pytest
from container_harness import Start, Template, eventually

import tidemill
from tidemill import exception
from tidemill._container.frames import FromRunner, ToRunner
from tidemill._wire import payload
from tidemill._wire.messages import Status


def test_a_function_gets_its_arguments_and_gives_its_result(start: Start) -> None:
    container = start("def f(a, *rest, key=None): return (a, rest, key)")
    assert container.call(1, 2, 3, key={"x": b"y"}) == (1, (2, 3), {"x": b"y"})


def test_values_that_are_not_plain_are_pickled(start: Start) -> None:
    container = start("import array\ndef f(a): return array.array('i', [a, a])")
    assert container.call(7).tolist() == [7, 7]


def test_plain_values_keep_their_types(start: Start) -> None:
    container = start("def f(x): return x")
    value = (1, {2}, frozenset([3]), datetime.date(2024, 1, 2), 1 + 2j, b"x")
    assert container.call(value) == value


def test_a_coroutine_function_runs_on_one_loop(start: Start) -> None:
    container = start(
        """
        import asyncio
        async def f():
            await asyncio.sleep(0)
            return id(asyncio.get_running_loop())
        """
    )
    assert container.call() == container.call()


def test_background_tasks_go_on_between_inputs(start: Start) -> None:
    container = start(
        """
        import asyncio
        done = None
        async def later():
            global done
            await asyncio.sleep(0.05)
            done = "yes"
        async def f(begin):
            if begin:
                f.task = asyncio.create_task(later())
            return done
        """
    )
    assert container.call(True) is None
    eventually(lambda: container.call(False) == "yes")


def test_code_that_cancels_every_task_ends_only_its_own_input(start: Start) -> None:
    container = start(
        """
        import asyncio
        async def f(all_of_them):
            if all_of_them:
                for task in asyncio.all_tasks():
                    task.cancel()
                await asyncio.sleep(10)
            return "fine"
        """
    )
    with pytest.raises(asyncio.CancelledError):
        container.call(True)
    assert container.call(False) == "fine"


def test_a_decorated_coroutine_function_is_awaited(start: Start) -> None:
    container = start(
        """
        import functools
        def decorate(g):
            return lambda *args: g(*args)
        @decorate
        async def f(x): return x + 1
        """
    )
    assert container.call(1) == 2


def test_synchronous_code_runs_in_the_main_thread_without_a_loop(start: Start) -> None:
    container = start(
        """
        import asyncio, threading
        imported = threading.current_thread() is threading.main_thread()
        def f():
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return imported, threading.current_thread() is threading.main_thread()
        """
    )
    assert container.call() == (True, True)


def test_async_code_runs_in_the_main_thread_too(start: Start) -> None:
    container = start(
        """
        import threading
        async def f(): return threading.current_thread() is threading.main_thread()
        """
    )
    assert container.call() is True


def test_an_error_keeps_its_type_and_shows_only_the_users_frames(start: Start) -> None:
    container = start("def g(): raise LookupError('no such row')\ndef f(): g()")
    status, error = container.output(container.give([()]))
    assert status == Status.FAILURE
    assert type(error) is LookupError
    assert str(error) == "no such row"
    frames = []
    frame = error.__traceback__
    while frame is not None:
        frames.append(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    assert frames == ["f", "g"]


@pytest.mark.parametrize("kind", ["", "async "])
def test_the_traceback_of_an_error_is_printed_to_the_inputs_stderr(start: Start, kind: str) -> None:
    container = start(f"{kind}def f(): raise LookupError('no such row')")
    container.output(container.give([()]))
    ((input_id, text),) = container.logged(2).items()
    assert input_id.endswith("-0")
    assert text.startswith("Traceback (most recent call last):\n  File ")
    assert text.endswith("LookupError: no such row\n")
    assert "tidemill" not in text


@pytest.mark.parametrize("kind", ["", "async "])
def test_a_base_exception_is_transported(start: Start, kind: str) -> None:
    container = start(
        f"""
        class Odd(BaseException): pass
        {kind}def f(which): raise {{"exit": SystemExit(3), "odd": Odd()}}[which]
        """
    )
    with pytest.raises(SystemExit) as caught:
        container.call("exit")
    assert caught.value.code == 3
    status, _error = container.output(container.give([("odd",)]))
    assert status == Status.FAILURE


@pytest.mark.parametrize("kind", ["", "async "])
def test_a_keyboard_interrupt_of_the_users_own_ends_the_container(start: Start, kind: str) -> None:
    container = start(f"{kind}def f(): raise KeyboardInterrupt")
    container.give([()])
    assert container.exit_status() == 130
    assert not container.frames.of(FromRunner.OUTPUTS)
    assert not container.frames.of(FromRunner.STOPPED)


def test_a_result_that_cannot_be_pickled_fails_its_input_alone(start: Start) -> None:
    container = start("import threading\ndef f(bad): return threading.Lock() if bad else 'fine'")
    with pytest.raises(exception.SerializationError, match="cannot be pickled"):
        container.call(True)
    assert container.call(False) == "fine"


def test_arguments_that_cannot_be_read_fail_their_input_alone(start: Start) -> None:
    container = start("def f(x): return x")
    chunk = container.give_encoded([(2, b"junk"), payload.encode_call((5,), {}), (1, b"\xc1")])
    assert container.output(chunk, 1) == (Status.SUCCESS, 5)
    for index in (0, 2):
        status, error = container.output(chunk, index)
        assert status == Status.FAILURE
        assert isinstance(error, exception.DeserializationError)


def test_restricted_output_lets_only_plain_values_out(start: Start) -> None:
    container = start("def f(x): return [x] if x else object()", restrict_output=True)
    assert container.call(1) == [1]
    with pytest.raises(exception.SerializationError, match="without pickle"):
        container.call(0)


def test_an_exception_above_two_mebibytes_is_trimmed(start: Start) -> None:
    container = start("def f(): raise ValueError('x' * 5_000_000)")
    chunk = container.give([()])
    container.output(chunk)
    (frame,) = container.frames.of(FromRunner.OUTPUTS)
    assert len(frame[2][0][3]) <= 2 << 20


def test_large_arguments_and_results_come_through_whole(start: Start) -> None:
    container = start("def f(data): return data[::-1]")
    data = bytes(range(256)) * 40_000
    assert container.call(data) == data[::-1]


def test_the_current_input_is_known_to_the_function(start: Start) -> None:
    container = start(
        """
        from tidemill import current_function_call_id, current_input_id, is_local
        def f(): return (is_local(), current_input_id(), current_function_call_id())
        """
    )
    first, second = container.results(container.give([(), ()]), 2)
    assert first[0] is False
    assert tidemill.is_local()
    assert first[1].startswith("in-")
    assert first[1].endswith("-0")
    assert second[1].endswith("-1")
    assert first[2].startswith("fc-")


def test_context_variables_of_one_input_do_not_reach_the_next(start: Start) -> None:
    container = start(
        """
        import contextvars
        seen = contextvars.ContextVar("seen", default=0)
        def f():
            seen.set(seen.get() + 1)
            return seen.get()
        """
    )
    assert container.results(container.give([(), (), ()]), 3) == [1, 1, 1]


# --- chunks


def test_thousands_of_inputs_in_chunks_come_back_each_once(start: Start) -> None:
    container = start("def f(x): return x * 2")
    chunks = [container.give([(start + i,) for i in range(64)]) for start in range(0, 6400, 64)]
    for number, chunk in enumerate(chunks):
        assert container.results(chunk, 64) == [2 * (number * 64 + i) for i in range(64)]
    assert sum(len(frame[2]) for frame in container.frames.of(FromRunner.OUTPUTS)) == 6400
    assert len(container.frames.of(FromRunner.OUTPUTS)) < 3200, "results share frames"


def test_one_failure_in_a_chunk_leaves_the_others_alone(start: Start) -> None:
    container = start("def f(x): return 1 // x")
    chunk = container.give([(1,), (0,), (1,)])
    assert container.output(chunk, 0) == (Status.SUCCESS, 1)
    assert container.output(chunk, 1)[0] == Status.FAILURE
    assert container.output(chunk, 2) == (Status.SUCCESS, 1)


@pytest.mark.parametrize("kind", ["", "async "])
def test_a_result_is_not_held_back_while_the_next_input_runs_long(
    start: Start, kind: str, tmp_path: Path
) -> None:
    container = start(
        f"""
        import os, time
        {kind}def f(wait_for):
            while wait_for and not os.path.exists(wait_for):
                time.sleep(0.001)
            return wait_for
        """
    )
    gate = tmp_path / "gate"
    chunk = container.give([("",), ("",), (str(gate),)])
    assert container.output(chunk, 1) == (Status.SUCCESS, "")
    running = container.frames.of(FromRunner.OUTPUTS)[-1][4]
    assert running == 2, "the worker learns which input runs now"
    gate.touch()
    assert container.output(chunk, 2) == (Status.SUCCESS, str(gate))
    assert container.frames.of(FromRunner.OUTPUTS)[-1][4] == -1


def test_the_seconds_of_a_chunk_are_those_of_its_executions(start: Start) -> None:
    container = start("import time\ndef f(s): time.sleep(s)")
    began = time.monotonic()
    chunk = container.give([(0.02,), (0.03,)])
    container.results(chunk, 2)
    at_most = time.monotonic() - began
    seconds = sum(frame[3] for frame in container.frames.of(FromRunner.OUTPUTS))
    assert 0.05 <= seconds <= at_most


def test_what_has_not_started_can_be_taken_back(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    container = start(
        """
        import os, time
        def f(gate):
            print("running")
            while not os.path.exists(gate):
                time.sleep(0.001)
        """
    )
    chunk = container.give([(str(gate),)] * 5)
    waiting = container.give([(str(gate),)] * 2)
    container.frames.first(FromRunner.LOG)
    container.send(ToRunner.RECALL, chunk)
    container.send(ToRunner.RECALL, waiting)
    container.frames.wait(lambda _frames: container.returned(waiting) == [0, 1])
    assert container.returned(chunk) == [1, 2, 3, 4]
    gate.touch()
    assert container.result(chunk, 0) is None
    assert container.call(str(gate)) is None


# --- loading


def test_a_serialized_function_needs_no_module(start: Start, tmp_path: Path) -> None:
    container = start("", serialized=payload.pickle(lambda x: x + 1), module="", qualname="")
    assert container.call(1) == 2


def test_a_declared_function_is_found_under_its_decorator(start: Start) -> None:
    container = start("import modal\napp = modal.App('a')\n@app.function()\ndef f(x): return x + 1")
    assert container.call(1) == 2


def test_a_script_is_imported_under_its_own_name(start: Start) -> None:
    container = start("name = __name__\ndef f(): return name\nif __name__ == '__main__': raise SystemExit(1)")
    assert container.call() == "hello"


def test_a_method_of_a_class_is_found_by_its_qualified_name(start: Start) -> None:
    container = start("class A:\n    class B:\n        @staticmethod\n        def f(): return 1", "A.B.f")
    assert container.call() == 1


def test_a_function_inside_a_function_is_refused_with_a_hint(start: Start) -> None:
    with pytest.raises(exception.ExecutionError, match="inside a function") as caught:
        start("", "outer.<locals>.f")
    assert "serialized=True" in caught.value.hint or "serialized=True" in str(caught.value)


def test_a_missing_function_is_named(start: Start) -> None:
    with pytest.raises(exception.ExecutionError, match="has no function g"):
        start("def f(): pass", "g")


def test_a_module_that_fails_at_import_shows_only_its_own_frames(start: Start) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        start("def g(): return 1 // 0\ng()")
    frames, frame = [], caught.value.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.startswith("<co-1>"):
            frames.append(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    assert frames == ["<module>", "g"]


def test_a_huge_exception_at_import_is_told_trimmed(start: Start) -> None:
    with pytest.raises(ValueError, match="xxx") as caught:
        start("raise ValueError('x' * 5_000_000)")
    assert len(str(caught.value)) <= 2 << 20


def test_a_module_that_exits_at_import_is_a_failed_start(start: Start) -> None:
    with pytest.raises(SystemExit):
        start("raise SystemExit(2)")


def test_a_container_that_failed_to_start_ends(start: Start) -> None:
    container = start.prepare("raise ValueError('at import')")
    container.send(ToRunner.START, {"container": "co-1", "module": "hello", "qualname": "f", "sources": []})
    container.frames.first(FromRunner.START_FAILED)
    assert container.exit_status() == 1


def test_variables_and_working_directory_are_there_at_import(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    container = start(
        "import os\nseen = os.environ['SECRET'], os.getcwd()\ndef f(): return seen",
        env={"SECRET": "s3cret"},
        workdir=str(folder),
    )
    assert container.call() == ("s3cret", str(folder))


def test_a_working_directory_that_cannot_be_is_a_failed_start(template: Template, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    container = template.fork()
    with pytest.raises(exception.ExecutionError, match="working directory"):
        container.start(module="os", qualname="getpid", workdir=str(tmp_path / "file"))


def test_handles_of_the_app_are_known_to_the_container(start: Start) -> None:
    handle = {"function_id": "fu-1", "name": "g", "app_id": "ap-1", "pool": "po-1", "prefix": "tm.inputs"}
    container = start(
        "from tidemill import _runtime\ndef f(): return _runtime.container.handles['g'].pool",
        handles={"g": handle},
    )
    assert container.call() == "po-1"


def test_fields_of_a_newer_worker_are_left_out(template: Template) -> None:
    container = template.fork()
    fields = {"container": "co-1", "module": "os", "qualname": "getpid", "invented": 1}
    container.send(ToRunner.START, fields)
    assert container.frames.first(FromRunner.READY)
    assert container.call() == container.pid()


def test_processes_of_multiprocessing_work_in_either_way(start: Start) -> None:
    container = start(
        """
        import modal, multiprocessing
        def work(x): return x + 1
        def f(method):
            with multiprocessing.get_context(method).Pool(1) as pool:
                return pool.map(work, [1, 2])
        """
    )
    assert container.call("fork") == [2, 3]
    assert container.call("spawn") == [2, 3]


def test_a_forked_child_that_returns_does_not_answer(start: Start) -> None:
    container = start(
        "import os\ndef f():\n    pid = os.fork()\n    if pid: os.waitpid(pid, 0)\n    return pid"
    )
    chunk = container.give([()])
    assert container.result(chunk) > 0
    assert container.call() > 0
    assert len(container.frames.of(FromRunner.OUTPUTS)) == 2


def test_results_unpickle_to_the_module_that_made_them(start: Start) -> None:
    container = start("class Point:\n    x = 1\ndef f(): return Point()")
    with pytest.raises(exception.DeserializationError):
        container.call()
    (frame,) = container.frames.of(FromRunner.OUTPUTS)
    with pytest.raises(ModuleNotFoundError, match="hello"):
        pickle.loads(frame[2][0][3])


def test_work_begins_before_the_first_answer_is_read(start: Start) -> None:
    container = start("import time\ndef f(): return time.time()")
    began = time.time()
    times = container.results(container.give([()] * 10), 10)
    assert began <= times[0] <= times[-1]
