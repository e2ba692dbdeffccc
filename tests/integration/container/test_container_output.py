"""Whose output is it."""

from pathlib import Path

from container_harness import CALL, Container, Start, rest

from tidemill._container.frames import FromInit, FromRunner
from tidemill._wire.ids import input_id

FIRST, SECOND = input_id(CALL, 0), input_id(CALL, 1)


def ended(container: Container) -> None:
    """Stop a container: everything that it wrote has arrived then."""
    assert container.stop() == 0


def test_prints_carry_the_input_and_come_before_its_result(start: Start) -> None:
    container = start("import sys\ndef f(x):\n    print('out', x)\n    print('err', x, file=sys.stderr)")
    container.results(container.give([(1,), (2,)]), 2)
    kinds = [frame[0] for frame in container.frames.frames]
    assert container.logged(1) == {FIRST: "out 1\n", SECOND: "out 2\n"}
    assert container.logged(2) == {FIRST: "err 1\n", SECOND: "err 2\n"}
    assert kinds.index(FromRunner.LOG) < kinds.index(FromRunner.OUTPUTS)


def test_what_is_printed_at_import_belongs_to_no_input(start: Start) -> None:
    container = start("print('importing')\ndef f(): print('running')")
    container.call()
    assert container.logged() == {"": "importing\n", FIRST: "running\n"}


def test_a_line_appears_while_its_input_still_runs(start: Start) -> None:
    container = start("import time\ndef f():\n    print('running')\n    time.sleep(100)")
    container.give([()])
    container.frames.wait(lambda _frames: container.logged() == {FIRST: "running\n"})


def test_many_lines_share_frames_and_none_is_lost(start: Start) -> None:
    container = start("def f():\n    for i in range(20_000): print(i)")
    container.call()
    assert container.logged()[FIRST].split() == [str(i) for i in range(20_000)]
    assert len(container.frames.of(FromRunner.LOG)) < 5_000


def test_threads_and_pools_know_their_input(start: Start) -> None:
    container = start(
        """
        import asyncio, threading
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        async def through_loop(x):
            await asyncio.get_running_loop().run_in_executor(None, print, "loop", x)
            await asyncio.to_thread(print, "to_thread", x)
        def f(x):
            thread = threading.Thread(target=print, args=("thread", x))
            thread.start(); thread.join()
            pool.submit(print, "pool", x).result()
            list(pool.map(print, [f"map {x}"]))
            asyncio.run(through_loop(x))
        """
    )
    container.results(container.give([(1,), (2,)]), 2)
    for number, one in ((1, FIRST), (2, SECOND)):
        words = ["thread", "pool", "map", "loop", "to_thread"]
        assert container.logged()[one] == "".join(f"{word} {number}\n" for word in words)


def test_subprocesses_and_raw_writes_are_tagged_exactly(start: Start) -> None:
    container = start(
        """
        import os, subprocess
        def f(x):
            os.write(1, b"raw %d\\n" % x)
            subprocess.run(["echo", "sub", str(x)], check=True)
            os.write(2, b"err %d\\n" % x)
        """
    )
    container.results(container.give([(i,) for i in range(100)]), 100)
    ended(container)
    for index in range(100):
        assert container.piped(1)[input_id(CALL, index)] == b"raw %d\nsub %d\n" % (index, index)
        assert container.piped(2)[input_id(CALL, index)] == b"err %d\n" % index


def test_tiny_inputs_that_write_past_python_are_tagged_exactly(start: Start) -> None:
    container = start("import os\ndef f(x): os.write(1, b'%d,' % x)")
    chunks = [container.give([(i,) for i in range(64)]) for _ in range(50)]
    for chunk in chunks:
        container.results(chunk, 64)
    ended(container)
    assert container.piped(1) == {input_id(CALL, i): b"%d," % i * 50 for i in range(64)}


def test_no_marker_is_ever_seen(start: Start) -> None:
    container = start("import os\ndef f(): os.write(1, bytes(range(256)) * 300)")
    container.results(container.give([()] * 20), 20)
    ended(container)
    assert b"".join(container.piped(1).values()) == bytes(range(256)) * 300 * 20
    assert set(container.piped(1)) == {input_id(CALL, i) for i in range(20)}


def test_background_output_between_inputs_belongs_to_none(start: Start) -> None:
    container = start(
        """
        import subprocess
        def f(): subprocess.Popen("sleep 1; echo late", shell=True)  # the input's end is marked long before
        """
    )
    container.call()
    container.control.first(FromInit.OUTPUT)
    assert container.piped(1) == {"": b"late\n"}


def test_a_forked_child_prints_through_the_pipe(start: Start) -> None:
    container = start(
        """
        import multiprocessing
        def f(x):
            child = multiprocessing.get_context("fork").Process(target=print, args=("child", x), daemon=True)
            child.start(); child.join()
        """
    )
    container.call(1)
    ended(container)
    assert container.piped(1) == {FIRST: b"child 1\n"}


def test_a_standard_stream_can_be_used_as_a_file(start: Start) -> None:
    container = start(
        """
        import subprocess, sys
        def f():
            sys.stdout.buffer.write(b"bytes\\n")
            sys.stdout.write("surrogate \\udc80\\n")
            subprocess.run(["echo", "given"], stdout=sys.stdout, check=True)
            return sys.stdout.isatty(), sys.stdout.encoding, sys.stdin.read()
        """
    )
    assert container.call() == (False, "utf-8", "")
    ended(container)
    assert container.logged() == {FIRST: "bytes\nsurrogate \\udc80\n"}
    assert container.piped(1) == {FIRST: b"given\n"}


def test_a_function_that_turns_its_output_elsewhere_keeps_working(start: Start) -> None:
    container = start(
        "import os\ndef f():\n    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)\n    os.write(1, b'x')"
    )
    container.results(container.give([()] * 3), 3)
    ended(container)
    assert container.piped(1) == {}


def test_a_worker_that_does_not_read_stops_the_writer_and_loses_nothing(start: Start, tmp_path: Path) -> None:
    container = start(
        """
        import os
        def f(path):
            progress = os.open(path, os.O_CREAT | os.O_RDWR)
            for i in range(4000):
                os.write(1, bytes(1000))
                os.pwrite(progress, b"%4d" % i, 0)
        """
    )
    progress = tmp_path / "progress"
    with container.control.paused():
        chunk = container.give([(str(progress),)])
        before = -1
        while not progress.exists() or before != (now := int(progress.read_text() or -1)) or now < 0:
            before = int(progress.read_text() or -1) if progress.exists() else -1
            rest()
        assert before < 1500, "the pipe, init's buffer and the socket's are all that it fills"
    container.result(chunk)
    ended(container)
    assert sum(map(len, container.piped(1).values())) == 4_000_000
