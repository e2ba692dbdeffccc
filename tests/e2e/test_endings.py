"""What must be gone is gone."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from running_stacks import RunningStack, is_gone, processes_of, run_cli, start, wait_until

PROGRAMS = Path(__file__).parent / "programs"
STARTED = 60.0  # seconds for a temporary stack and a container on it


def pid_in(file: Path) -> int:
    return int(wait_until(lambda: file.exists() and file.read_text(), STARTED, f"for {file.name}"))


@contextmanager
def interrupted(environment: dict[str, str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Hold a program whose function leaves the pids of itself and of a child of its own."""
    command = [sys.executable, "-m", "tidemill.cli", "run", f"{PROGRAMS / 'endings.py'}::interrupted"]
    process = start([*command, "--folder", str(folder)], environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_timeout_ends_the_function_with_all_its_processes(stack: RunningStack, tmp_path: Path) -> None:
    done = stack.cli("run", "-q", f"{PROGRAMS / 'endings.py'}::timeout", "--folder", str(tmp_path))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("FunctionTimeoutError: ")
    assert second == "9"
    for name in ("parent", "child"):
        wait_until(lambda name=name: is_gone(pid_in(tmp_path / name)), what=f"for the {name} to be gone")


def folders_of(home: Path) -> list[Path]:
    return list(home.glob("tidemill-*"))


@pytest.mark.long
def test_a_run_without_a_stack_leaves_nothing_behind(nothing_up: Path, no_stack: dict[str, str]) -> None:
    done = run_cli("run", f"{PROGRAMS / 'calls.py'}::awaited", environment=no_stack)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "9\n"
    assert "temporary stack" in done.stderr
    assert processes_of(nothing_up) == []
    assert folders_of(nothing_up) == []


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_the_app_its_containers_and_the_temporary_stack(
    nothing_up: Path, no_stack: dict[str, str], tmp_path: Path, number: int, status: int
) -> None:
    with interrupted(no_stack, tmp_path) as process:
        parent, child = pid_in(tmp_path / "parent"), pid_in(tmp_path / "child")
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Stopping the app" in errors
    assert "Traceback" not in errors
    assert is_gone(parent)
    assert is_gone(child)
    assert processes_of(nothing_up) == []
    assert folders_of(nothing_up) == []


@pytest.mark.long
@pytest.mark.parametrize("victim", ["client", "supervisor"])
def test_a_temporary_stack_ends_with_a_killed_client_or_supervisor(
    nothing_up: Path, no_stack: dict[str, str], tmp_path: Path, victim: str
) -> None:
    with interrupted(no_stack, tmp_path) as process:
        child = pid_in(tmp_path / "child")
        if victim == "client":
            process.kill()
        else:
            children = psutil.Process(process.pid).children()
            (supervisor,) = [each for each in children if "temporary" in each.cmdline()]
            supervisor.kill()
        wait_until(lambda: is_gone(child), what="for the function's child to be gone")
        wait_until(lambda: processes_of(nothing_up) == [], what="for the stack to be gone")
        wait_until(lambda: folders_of(nothing_up) == [], what="for its folder to be gone")


def test_a_function_may_call_itself_deeper_than_there_are_cores(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", str(PROGRAMS / "recursion.py"))
    assert done.stdout == "4\n", done.stderr
