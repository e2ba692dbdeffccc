"""Interactive runs and programs in containers, driven at a real pseudo-terminal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pseudo_terminal import AtTerminal
from running_stacks import RunningStack, wait_until

PROGRAM = str(Path(__file__).parent / "programs" / "interactive.py")


def at_terminal(stack: RunningStack, *arguments: str, size: tuple[int, int] = (24, 80)) -> AtTerminal:
    return AtTerminal([sys.executable, "-m", "tidemill.cli", *arguments], stack.environment, size)


def run(stack: RunningStack, name: str) -> AtTerminal:
    return at_terminal(stack, "run", "-i", f"{PROGRAM}::{name}")


# --- interactive runs


def test_a_debugger_and_questions_use_the_callers_terminal(stack: RunningStack) -> None:
    with run(stack, "talk") as terminal:
        terminal.see("(Pdb)")
        assert terminal.is_raw()
        terminal.type("p x\r")
        terminal.see("41")
        terminal.type("!x += 1\r")
        terminal.type("c\r")
        terminal.see("result 42")
        terminal.see("name? ")
        terminal.type("Ada\r")
        terminal.see("hello Ada")
        terminal.see("asked Ada")
        terminal.see("here? ")
        assert terminal.is_restored()
        terminal.type("yes\n")
        terminal.see("local yes")
        assert terminal.end() == 0
        assert terminal.is_restored()


def test_ctrl_c_reaches_the_function_and_ends_the_run(stack: RunningStack) -> None:
    with run(stack, "looping") as terminal:
        terminal.see("size 24 80")
        terminal.type("\x03")
        terminal.see("KeyboardInterrupt")
        assert terminal.end() == 130
        assert terminal.is_restored()


def test_the_window_size_follows(stack: RunningStack) -> None:
    with run(stack, "shell") as terminal:
        terminal.type("stty size\r")
        terminal.see("24 80")
        terminal.resize(40, 120)
        terminal.type("until stty size | grep '40 ''120'; do :; done; exit\r")
        terminal.see("40 120")
        assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_restored_when_the_run_is_ended_from_outside(
    stack: RunningStack, number: signal.Signals
) -> None:
    with run(stack, "looping") as terminal:
        terminal.see("size")
        terminal.signal(number)
        assert terminal.end() == 128 + number
        assert terminal.is_restored()


def test_the_terminal_is_restored_when_the_container_dies(stack: RunningStack) -> None:
    with run(stack, "dies") as terminal:
        terminal.see("about to die")
        terminal.see("status 3")
        assert terminal.end() == 1
        assert terminal.is_restored()


def test_an_interactive_run_needs_a_terminal(stack: RunningStack) -> None:
    done = stack.cli("run", "-i", f"{PROGRAM}::asking", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "error: an interactive run needs a terminal" in done.stderr
    assert "hint:" in done.stderr


def test_without_i_a_breakpoint_is_an_error_that_says_what_to_do(stack: RunningStack) -> None:
    done = stack.cli("run", f"{PROGRAM}::debugged")
    assert done.returncode == 1
    assert "tidemill run -i" in done.stderr


# --- containers


@contextmanager
def holding(
    stack: RunningStack, name: str = "hold", *arguments: str, state: str = "idle"
) -> Iterator[tuple[Any, str]]:
    """Run a program until the block ends; give its process and the id of its container, which is so."""
    program = stack.start_cli("run", "-q", f"{PROGRAM}::{name}", *arguments, stdin=subprocess.PIPE)
    try:
        app_id = program.stdout.readline().strip()
        yield program, wait_until(lambda: container_of(stack, app_id, state), what="for the container")
    finally:
        program.communicate("enough\n", timeout=60)


def listed(stack: RunningStack, *arguments: str) -> list[dict[str, Any]]:
    done = stack.cli("container", "list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def container_of(stack: RunningStack, app_id: str, state: str) -> str:
    found = listed(stack, "--app-id", app_id)
    return next((one["container_id"] for one in found if one["state"] == state), "")


def test_running_containers_are_listed(stack: RunningStack) -> None:
    with holding(stack) as (_, container):
        (found,) = [one for one in listed(stack) if one["container_id"] == container]
        assert (found["app_name"], found["state"]) == ("interactive", "idle")
        assert [one["container_id"] for one in listed(stack, "--app-id", found["app_id"])] == [container]
        assert listed(stack, "--app-id", "ap-another") == []
        assert container in stack.cli("container", "list").stdout


def test_a_program_in_a_container_has_our_streams_and_its_status_is_ours(stack: RunningStack) -> None:
    with holding(stack) as (_, container):
        script = "read line; echo got $line; echo bad >&2; exit 9"
        done = stack.cli("container", "exec", container, "sh", "-c", script, input="hello\n")
        assert (done.stdout, done.stderr, done.returncode) == ("got hello\n", "bad\n", 9)
        data = os.urandom(3_000_000)
        command = [sys.executable, "-m", "tidemill.cli", "container", "exec", container, "cat"]
        echoed = subprocess.run(
            command, env=stack.environment, input=data, capture_output=True, check=True, timeout=60
        )
        assert echoed.stdout == data


def test_a_program_at_a_terminal(stack: RunningStack) -> None:
    with holding(stack) as (_, container):
        with at_terminal(stack, "container", "exec", container, "sh", size=(33, 99)) as terminal:
            terminal.type("stty size; tty\r")
            terminal.see("33 99")
            terminal.see("/dev/")
            # What is typed is echoed. A shell runs a trap only between two commands: these are short. Without
            # job control no group of its own gets the signal, which is lost where that has just ended.
            terminal.type("set +m; trap 'echo interr''upted; over=1' INT\r")
            terminal.type("until [ $over ]; do echo loop''ing; sleep 0.01; done\r")
            terminal.see("looping")
            terminal.type("\x03")
            terminal.see("interrupted")
            terminal.type("exit 5\r")
            assert terminal.end() == 5
            assert terminal.is_restored()
        with at_terminal(stack, "container", "exec", "--no-pty", container, "sh", "-c", "tty") as terminal:
            terminal.see("not a tty")
            assert terminal.end() == 1


def test_signals_are_passed_on_to_a_program_without_a_terminal(stack: RunningStack) -> None:
    with holding(stack) as (_, container):
        script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.01; done"
        program = stack.start_cli("container", "exec", container, "sh", "-c", script)
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=60)[0] == "caught\n"
        assert program.returncode == 3


def test_a_program_ends_with_the_command_that_started_it(stack: RunningStack) -> None:
    command = ("sh", "-c", "echo pid $$; exec sleep 1000")
    with (
        holding(stack) as (_, container),
        at_terminal(stack, "container", "exec", container, *command) as terminal,
    ):
        terminal.see("pid ")
        pid = int(terminal.see("\r\n"))
        terminal.signal(signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_program_ends_with_its_container(stack: RunningStack) -> None:
    with holding(stack) as (_, container):
        program = stack.start_cli("container", "exec", container, "sh", "-c", "echo ready; exec sleep 1000")
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        assert stack.cli("container", "stop", "-y", container).returncode == 0
        program.communicate(timeout=60)
        assert program.returncode in (1, 128 + signal.SIGKILL)


def test_what_a_stopped_container_ran_runs_again_in_another(stack: RunningStack, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with holding(stack, "hold_busy", "--gate", str(gate), state="busy") as (program, container):
        assert stack.cli("container", "stop", "-y", container).returncode == 0
        wait_until(lambda: container not in [one["container_id"] for one in listed(stack)])
        gate.touch()
        assert program.stdout.readline() == "finished True\n"


def test_a_container_that_is_stopped_gracefully_finishes_what_it_runs(
    stack: RunningStack, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with holding(stack, "hold_busy", "--gate", str(gate), state="busy") as (program, container):
        pid = wait_until(lambda: _pid_of(stack, container))
        assert stack.cli("container", "stop", "--graceful", "-y", container).returncode == 0
        assert Path(f"/proc/{pid}").exists()
        gate.touch()
        assert program.stdout.readline() == "finished True\n"
        wait_until(lambda: not Path(f"/proc/{pid}").exists())


def _pid_of(stack: RunningStack, container: str) -> int:
    workers = json.loads(stack.cli("status", "--json").stdout)["workers"]
    found = [
        one["pid"] for worker in workers for one in worker["containers"] if one["container"] == container
    ]
    return int(found[0]) if found else 0


def test_a_container_that_does_not_run_is_an_error_with_a_hint(stack: RunningStack) -> None:
    for arguments in (("exec", "co-nothing", "true"), ("stop", "-y", "co-nothing")):
        done = stack.cli("container", *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error: no container co-nothing runs\nhint: ")


def test_pty_needs_a_terminal(stack: RunningStack) -> None:
    done = stack.cli("container", "exec", "--pty", "co-nothing", "sh")
    assert done.returncode == 2
    assert "--pty needs a terminal" in done.stderr
