"""Calls through the command line, from the entrypoint to the container and back."""

from pathlib import Path

import pytest
from running_stacks import RunningStack, run

PROGRAMS = Path(__file__).parent / "programs"
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_first_example_prints_its_results(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", str(EXAMPLES / "hello.py"))
    assert done.returncode == 0, done.stderr
    own = [line for line in done.stdout.splitlines() if not line.startswith("squaring")]
    assert own == ["49", "285"]
    assert done.stdout.count("squaring") == 11


def test_progress_goes_to_standard_error(stack: RunningStack) -> None:
    done = stack.cli("run", f"{PROGRAMS / 'calls.py'}::awaited")
    assert done.stdout == "9\n"
    assert "Created function square." in done.stderr
    assert "App completed." in done.stderr


def test_a_map_keeps_the_order_of_its_inputs(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{PROGRAMS / 'calls.py'}::order")
    assert done.stdout == "[0, 1, 2, 3, 4, 5, 6, 7]\n" * 2, done.stderr


def test_a_function_is_run_by_name_and_its_output_keeps_its_streams(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{PROGRAMS / 'calls.py'}::app.chatty", "--word", "tide")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "said tide\n"
    assert done.stderr == "complained tide\n"


def test_an_unchanged_script_for_modal_runs_under_the_command_line(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", str(PROGRAMS / "written_for_modal.py"), "--name", "mill")
    assert done.stdout == "Hello, mill! tidemill.exception\n", done.stderr


def test_an_unchanged_script_for_modal_runs_by_itself(stack: RunningStack, python: str) -> None:
    done = run([python, "-m", "tidemill", str(PROGRAMS / "written_for_modal.py")], stack.environment)
    assert done.stdout == "Hello, script! tidemill.exception\n", done.stderr


def test_an_exception_shows_where_it_was_raised_remotely(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{PROGRAMS / 'failing.py'}::main")
    assert done.returncode == 1
    report = done.stderr[done.stderr.rindex("Traceback (most recent call last):") :]
    files = [line for line in report.splitlines() if line.startswith('  File "')]
    assert "failing.py" in files[0]
    assert 'fails.remote("missing")' in report
    assert '    return {"a": "b"}[key]' in report
    assert report.rstrip().endswith("KeyError: 'missing'")
    assert not any("/tidemill/" in line for line in files)


def test_generators_can_be_mapped_and_spawned(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{PROGRAMS / 'calls.py'}::generators")
    assert done.stdout.splitlines() == [
        "[[0, 1], [], [0, 1, 2]] [0, 1, 2]",
        "[[0], [0, 1]] [0, 1]",
        "[[0], [0, 1]] [0, 1]",
    ], done.stderr


def test_bad_input_gives_one_error_each_and_leaves_everything_usable(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{PROGRAMS / 'failing.py'}::handled")
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert said["own class"] == "Broken: the wheel"
    assert said["unreadable class"].startswith("ExecutionError: ")
    assert "wheel broke 3 times" in said["unreadable class"]
    assert said["base exception"].startswith("SystemExit: 3")
    assert "status 7" in said["ended process"]
    assert said["huge exception"].startswith("ValueError: xxx")
    assert said["unpicklable result"].startswith("SerializationError: ")
    assert said["unpicklable argument"].startswith("SerializationError: ")
    assert said["afterwards"] == "returned 'fine'"


def test_exceptions_of_a_map_can_be_returned(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{PROGRAMS / 'failing.py'}::mapped")
    assert done.stdout == "['str', 'KeyError', 'str']\n", done.stderr


def test_a_module_that_fails_in_the_container_is_told_to_the_caller(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", str(PROGRAMS / "fails_at_import.py"))
    assert done.returncode == 1
    assert "RuntimeError: not in a container" in done.stderr


@pytest.fixture
def python() -> str:
    import sys

    return sys.executable
