"""Cancelling: the right input, at the right time, and nothing else."""

from pathlib import Path

import pytest
from container_harness import Container, Start, eventually, is_alive

from tidemill._container.frames import FromInit, FromRunner, ToInit, ToRunner
from tidemill._wire.messages import Status

SLEEPS = {
    "sleep": "time.sleep(100)",
    "lock": "lock.acquire()",
    "event": "threading.Event().wait()",
    "queue": "queue.SimpleQueue().get()",
    "recv": "pair[0].recv(1)",
    "subprocess": "subprocess.run(['sleep', '100'])",
    "python": "spin()",
}


def begin(container: Container, *args: object, count: int = 1) -> int:
    """Start a chunk and wait until its function says that it runs."""
    chunk = container.give([args] * count)
    container.frames.wait(lambda _frames: any("running" in text for text in container.logged().values()))
    return chunk


@pytest.mark.parametrize("how", SLEEPS)
def test_a_synchronous_function_is_interrupted_wherever_it_waits(start: Start, how: str) -> None:
    container = start(
        f"""
        import queue, socket, subprocess, threading, time
        lock = threading.Lock()
        lock.acquire()
        pair = socket.socketpair()
        def spin():
            while True: pass
        def f():
            print("running")
            {SLEEPS[how]}
        """
    )
    chunk = begin(container)
    container.send(ToRunner.CANCEL, chunk, 0)
    status, _error = container.output(chunk)
    assert status == Status.CANCELLED


@pytest.mark.parametrize("kind", ["", "async "])
def test_the_function_sees_its_cancellation_and_the_container_goes_on(start: Start, kind: str) -> None:
    wait = "await asyncio.sleep(100)" if kind else "time.sleep(100)"
    container = start(
        f"""
        import asyncio, time
        seen = []
        {kind}def f(sleep):
            if not sleep:
                return seen
            try:
                print("running")
                {wait}
            except BaseException as error:
                seen.append(type(error).__name__)
                raise
        """
    )
    chunk = begin(container, True)
    container.send(ToRunner.CANCEL, chunk, 0)
    assert container.output(chunk)[0] == Status.CANCELLED
    assert container.call(False) == ["CancelledError" if kind else "InputCancellation"]


@pytest.mark.parametrize("kind", ["", "async "])
def test_a_cancellation_that_comes_too_late_does_nothing(start: Start, kind: str) -> None:
    container = start(f"{kind}def f(x): return x")
    for number in range(300):
        chunk = container.give([(number,), (number,)])
        container.send(ToRunner.CANCEL, chunk, 0)
        container.send(ToRunner.CANCEL, chunk, 1)
        outputs = [container.output(chunk, index) for index in (0, 1)]
        assert all(status in (Status.SUCCESS, Status.CANCELLED) for status, _ in outputs)
    container.send(ToRunner.CANCEL, 1, 0)
    assert container.call("fine") == "fine"
    assert container.stop() == 0
    assert container.logged(2) == {}


@pytest.mark.parametrize("kind", ["", "async "])
def test_only_the_named_input_of_a_chunk_is_cancelled(start: Start, kind: str, tmp_path: Path) -> None:
    container = start(
        f"""
        import os, time
        {kind}def f(gate):
            print("running")
            while not os.path.exists(gate):
                time.sleep(0.001)
            return "done"
        """
    )
    gate = tmp_path / "gate"
    chunk = begin(container, str(gate), count=4)
    container.send(ToRunner.CANCEL, chunk, 2)
    assert container.output(chunk, 2)[0] == Status.CANCELLED, "it had not started: it is answered at once"
    gate.touch()
    for index in (0, 1, 3):
        assert container.output(chunk, index) == (Status.SUCCESS, "done")


@pytest.mark.parametrize("kind", ["", "async "])
def test_code_that_swallows_its_cancellation_keeps_its_result(start: Start, kind: str) -> None:
    wait = "await asyncio.sleep(100)" if kind else "time.sleep(100)"
    container = start(
        f"""
        import asyncio, time
        {kind}def f():
            try:
                print("running")
                {wait}
            except BaseException:
                return "swallowed"
        """
    )
    chunk = begin(container)
    container.send(ToRunner.CANCEL, chunk, 0)
    assert container.output(chunk) == (Status.SUCCESS, "swallowed")


def test_printing_is_never_torn_apart_by_a_cancellation(start: Start) -> None:
    container = start("def f():\n    print('running')\n    while True: print('x' * 50)")
    for _ in range(20):
        container.frames.frames.clear()
        chunk = begin(container)
        container.send(ToRunner.CANCEL, chunk, 0)
        assert container.output(chunk)[0] == Status.CANCELLED
    assert container.stop() == 0


def test_code_in_c_that_holds_the_interpreter_ends_by_the_kill(start: Start) -> None:
    container = start(
        """
        import ctypes, os
        def f():
            while True:
                try:
                    os.write(1, b"running")
                    ctypes.PyDLL(None).sleep(1000)
                except BaseException:
                    pass
        """
    )
    chunk = container.give([()])
    container.control.first(FromInit.OUTPUT)
    container.send(ToRunner.CANCEL, chunk, 0)
    runner = container.pid()
    container.order(ToInit.KILL)
    assert container.exit_status() == -9
    assert not container.frames.of(FromRunner.OUTPUTS)
    assert not is_alive(runner)


# --- stop and signals


@pytest.mark.parametrize("kind", ["", "async "])
def test_stop_finishes_what_runs_and_gives_back_the_rest(start: Start, kind: str, tmp_path: Path) -> None:
    container = start(
        f"""
        import atexit, os, time
        atexit.register(print, "the end")
        {kind}def f(gate):
            print("running")
            while not os.path.exists(gate):
                time.sleep(0.001)
            return "done"
        """
    )
    gate = tmp_path / "gate"
    chunk = begin(container, str(gate), count=3)
    waiting = container.give([(str(gate),)])
    container.send(ToRunner.STOP)
    container.frames.wait(lambda _frames: container.returned(waiting) == [0])
    late = container.give([(str(gate),)])
    container.frames.wait(lambda _frames: container.returned(late) == [0])
    gate.touch()
    container.frames.first(FromRunner.STOPPED)
    assert container.output(chunk, 0) == (Status.SUCCESS, "done")
    assert container.returned(chunk) == [1, 2]
    assert container.logged()[""] == "the end\n"
    assert container.exit_status() == 0


def test_stop_waits_for_threads_that_are_no_daemons(start: Start) -> None:
    container = start(
        """
        import threading, time
        def later():
            time.sleep(0.2)
            print("later")
        def f():
            threading.Thread(target=later).start()
        """
    )
    container.call()
    assert container.stop() == 0
    assert "later\n" in container.logged().values()


@pytest.mark.parametrize("number", [2, 15])
@pytest.mark.parametrize("kind", ["", "async "])
def test_a_signal_interrupts_runs_the_exit_hooks_and_records_no_failure(
    start: Start, kind: str, number: int
) -> None:
    wait = "await asyncio.sleep(100)" if kind else "time.sleep(100)"
    container = start(
        f"""
        import asyncio, atexit, time
        atexit.register(print, "the end")
        {kind}def f():
            print("running")
            {wait}
        """
    )
    chunk = begin(container, count=2)
    container.order(ToInit.SIGNAL, number)
    container.frames.first(FromRunner.STOPPED)
    assert container.returned(chunk) == [0, 1], "both are given back, the interrupted one too"
    assert not container.frames.of(FromRunner.OUTPUTS)
    assert container.logged()[""] == "the end\n"
    assert container.exit_status() == 0


@pytest.mark.parametrize("kind", ["", "async "])
def test_a_signal_ends_a_container_that_is_idle(start: Start, kind: str) -> None:
    container = start(f"{kind}def f(): pass")
    container.call()
    container.order(ToInit.SIGNAL, 15)
    container.frames.first(FromRunner.STOPPED)
    assert container.exit_status() == 0


def test_a_signal_during_the_import_ends_the_container(start: Start, tmp_path: Path) -> None:
    container = start.prepare("import time\nprint('importing')\ntime.sleep(100)")
    container.send(
        ToRunner.START,
        {"container": "co-1", "module": "hello", "qualname": "f", "sources": [str(tmp_path)]},
    )
    container.frames.first(FromRunner.LOG)
    container.order(ToInit.SIGNAL, 2)
    container.frames.first(FromRunner.STOPPED)
    assert container.exit_status() == 0


def test_a_signal_while_a_generator_waits_for_credit_gives_it_back(start: Start) -> None:
    container = start("def f():\n    for i in range(5000): yield i", is_generator=True)
    chunk = container.give([()])
    eventually(lambda: len(container.pieces(chunk)) == 1024)
    container.order(ToInit.SIGNAL, 15)
    container.frames.first(FromRunner.STOPPED)
    assert container.returned(chunk) == [0]
