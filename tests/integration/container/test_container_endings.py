"""How containers end, and that nothing of them is left."""

import os
import signal
from pathlib import Path

import pytest
from container_harness import Container, Start, Template, eventually, is_alive

from tidemill._container.frames import FromInit, FromRunner, ToInit, ToTemplate

STUBBORN = """
import os, signal, time
def become_daemon(path):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.setsid()
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)
    while True:
        time.sleep(1)
def f(path):
    child = os.fork()
    if not child:
        become_daemon(path)
    os.waitpid(child, 0)
    while not os.path.exists(path):
        time.sleep(0.001)
    return os.getpid()
"""


def stubborn(container: Container, tmp_path: Path) -> tuple[int, int]:
    """Have a container make a daemon that ignores signals; return both pids."""
    path = tmp_path / "pid"
    runner = container.call(str(path))
    daemon = int(path.read_text())
    assert is_alive(daemon)
    return runner, daemon


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), 9)", -9),
        ("ctypes.string_at(0)", -11),
        ("os.abort()", -6),
    ],
)
def test_the_worker_learns_how_a_runner_ended(start: Start, code: str, status: int) -> None:
    container = start(f"import ctypes, os\ndef f(): {code}")
    container.give([()])
    assert container.exit_status() == status
    container.frames.wait_closed()
    assert not container.frames.of(FromRunner.OUTPUTS)


def test_a_crash_leaves_its_frames_in_the_inputs_output(start: Start) -> None:
    container = start("import ctypes\ndef crash(): ctypes.string_at(0)\ndef f(): crash()")
    container.give([()])
    container.exit_status()
    ((input_id, text),) = container.piped(2).items()
    assert input_id.endswith("-0")
    assert b"Segmentation fault" in text
    assert b"in crash" in text


def test_a_daemon_that_ignores_signals_ends_with_its_container(start: Start, tmp_path: Path) -> None:
    container = start(STUBBORN)
    _runner, daemon = stubborn(container, tmp_path)
    assert container.stop() == 0
    assert not is_alive(daemon)


def test_kill_ends_everything_before_it_is_reported(start: Start, tmp_path: Path) -> None:
    container = start(STUBBORN)
    runner, daemon = stubborn(container, tmp_path)
    container.order(ToInit.KILL)
    assert container.exit_status() == -signal.SIGKILL
    assert not is_alive(runner)
    assert not is_alive(daemon)


def test_the_end_of_the_worker_is_the_end_of_its_containers(start: Start, tmp_path: Path) -> None:
    container = start(STUBBORN)
    runner, daemon = stubborn(container, tmp_path)
    container.close()
    eventually(lambda: not is_alive(runner) and not is_alive(daemon))


def test_a_runner_that_keeps_the_interpreter_ends_with_its_worker(start: Start, tmp_path: Path) -> None:
    container = start("import ctypes, os\ndef f(): print('running'); ctypes.PyDLL(None).sleep(1000)")
    runner = container.pid()
    container.give([()])
    container.close()
    eventually(lambda: not is_alive(runner))


def test_what_a_killed_init_leaves_is_ended_by_the_template(
    start: Start, template: Template, tmp_path: Path
) -> None:
    container = start(STUBBORN)
    other = start("import os\ndef f(): return os.getpid()")
    runner, daemon = stubborn(container, tmp_path)
    os.kill(container.init, signal.SIGKILL)
    eventually(lambda: not is_alive(runner) and not is_alive(daemon))
    container.control.wait_closed()
    assert not container.control.of(FromInit.EXITED)
    assert other.call() == other.pid(), "its neighbours live on"


def test_a_process_that_kills_its_group_does_not_reach_init(start: Start) -> None:
    container = start("import os\ndef f(): os.killpg(0, 9)")
    container.give([()])
    assert container.exit_status() == -9


def test_a_signal_to_init_reaches_the_runner(start: Start) -> None:
    container = start("def f(): pass")
    os.kill(container.init, signal.SIGTERM)
    container.frames.first(FromRunner.STOPPED)
    assert container.exit_status() == 0


def test_orphans_are_reaped_while_the_container_lives(start: Start) -> None:
    container = start(
        """
        import os
        def f():
            read, write = os.pipe()
            if not os.fork():
                pid = os.fork()
                if pid:
                    os.write(write, str(pid).encode())
                os._exit(0)
            return int(os.read(read, 20))
        """
    )
    orphan = container.call()
    eventually(lambda: not Path(f"/proc/{orphan}").exists())


def test_a_template_ends_with_its_socket(tmp_path: Path) -> None:
    template = Template(tmp_path)
    container = template.fork()
    container.start(module="os", qualname="getpid")
    template.close()  # asserts that it ended in order
    eventually(lambda: not is_alive(container.init))


def test_containers_outlive_a_template_that_is_dropped(tmp_path: Path) -> None:
    template = Template(tmp_path)
    container = template.fork()
    container.start(module="os", qualname="getpid")
    template.containers.clear()
    template.close()
    assert container.call() == container.pid()
    assert container.stop() == 0
    container.close()


def test_a_request_without_sockets_is_refused(template: Template) -> None:
    from tidemill._container import sockets
    from tidemill._container.frames import FromTemplate

    template.sock.sendall(sockets.pack((ToTemplate.FORK, "co-lonely", False)))
    _, container, message = template.frames.first(FromTemplate.FAILED)
    assert container == "co-lonely"
    assert "sockets" in message
