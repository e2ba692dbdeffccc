"""What `tidemill run` takes, says and returns."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running_stacks import RunningStack, run_cli, start

PROGRAMS = Path(__file__).parent / "programs"
CALLS = str(PROGRAMS / "calls.py")

APP = "import tidemill\napp = tidemill.App('a')\n"
FUNCTION = "@app.function()\ndef f(x: int) -> int:\n    return x\n"
ENTRYPOINT = "@app.local_entrypoint()\ndef main(x: int = 1):\n    print(f.remote(x))\n"


@pytest.mark.parametrize(
    ("text", "arguments", "status", "error", "hint"),
    [
        ("x = 1\n", [], 1, "has no app", "app = tidemill.App"),
        (APP, [], 1, "has nothing to run", "@app.function()"),
        (
            APP + FUNCTION + ENTRYPOINT + ENTRYPOINT.replace("main", "other"),
            [],
            1,
            "2 local entrypoints",
            "other",
        ),
        (APP + FUNCTION + APP.replace("app =", "more ="), ["--y", "1"], 2, "No such option '--y'", "--help"),
        (APP + FUNCTION, ["--x", "word"], 2, "not a valid integer", "--help"),
        (APP + FUNCTION, [], 2, "Missing option '--x'", "--help"),
        ("def f(:\n", [], 1, "cannot be imported", "this is Python 3."),
        ("from . import sibling\n", [], 1, "cannot be imported", "tidemill run -m"),
        (APP + FUNCTION + "f.remote(1)\n", [], 1, "cannot be imported", "with app.run()"),
        (APP + FUNCTION + "with app.run(): pass\n", [], 1, "cannot be imported", ""),
    ],
)
def test_what_cannot_be_run_is_told_with_a_hint(
    stack: RunningStack, tmp_path: Path, text: str, arguments: list[str], status: int, error: str, hint: str
) -> None:
    (tmp_path / "script.py").write_text(text)
    done = stack.cli("run", "script.py", *arguments, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    told = re.search(r"^error: (.*)\n(?:hint: (.*)\n)?\Z", done.stderr, re.MULTILINE)
    assert told, done.stderr
    assert error in told[1]
    assert hint in (told[2] or "")
    assert "/tidemill/" not in done.stderr  # no frame of ours


def test_an_error_in_the_script_shows_its_place(stack: RunningStack, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("def broken():\n    return 1 / 0\n\nbroken()\n")
    done = stack.cli("run", "script.py", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n  File ")
    assert done.stderr.splitlines()[1].endswith('script.py", line 4, in <module>')
    assert "ZeroDivisionError: division by zero" in done.stderr


def test_a_folder_is_told_as_one(stack: RunningStack, tmp_path: Path) -> None:
    done = stack.cli("run", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "error: . is a folder")


@pytest.mark.parametrize("group", [[], ["app"]])
def test_a_group_without_a_command_shows_its_help(stack: RunningStack, group: list[str]) -> None:
    done = stack.cli(*group)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == stack.cli(*group, "--help").stdout


def test_a_missing_file_is_told_at_once(stack: RunningStack) -> None:
    done = stack.cli("run", "nowhere.py")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the file nowhere.py does not exist\nhint: is ")


def test_an_unreachable_server_is_told_with_a_hint(stack: RunningStack) -> None:
    environment = stack.environment | {"TIDEMILL_SERVER_URL": "nats://127.0.0.1:9"}
    done = run_cli("run", f"{CALLS}::awaited", environment=environment)
    assert done.returncode == 1
    assert "error: cannot connect to nats://127.0.0.1:9" in done.stderr
    assert "hint: check that it runs, and TIDEMILL_SERVER_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_credentials_are_told(stack: RunningStack) -> None:
    wrong = {"TIDEMILL_TOKEN_ID": stack.info.token_id, "TIDEMILL_TOKEN_SECRET": "wrong"}
    environment = stack.environment | wrong | {"TIDEMILL_SERVER_URL": stack.info.server_url}
    done = run_cli("run", f"{CALLS}::awaited", environment=environment)
    assert done.returncode == 1
    assert "does not know these credentials" in done.stderr
    assert "hint: check TIDEMILL_TOKEN_ID" in done.stderr


def test_a_python_that_the_worker_does_not_have_is_told(stack: RunningStack, tmp_path: Path) -> None:
    image = "image=tidemill.Image.debian_slim(python_version='3.99')"
    (tmp_path / "script.py").write_text(APP + FUNCTION.replace("function()", f"function({image})"))
    done = stack.cli("run", "-q", "script.py", "--x", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert "3.99" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_the_options_of_an_entrypoint_without_a_server(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "TIDEMILL_SERVER_URL": "nats://127.0.0.1:9"}
    done = run_cli("run", f"{CALLS}::awaited", "--help", environment=environment)
    assert done.returncode == 0, done.stderr
    assert "--x INTEGER" in done.stdout


def test_all_words_go_to_a_variadic_entrypoint(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{CALLS}::words", "one", "--two", "3")
    assert done.stdout == "['one', '--two', '3']\n", done.stderr


def test_a_result_is_written_to_a_file(stack: RunningStack, tmp_path: Path) -> None:
    done = stack.cli("run", "-q", "-w", str(tmp_path / "result"), f"{CALLS}::returned")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result").read_text() == "the result"


def test_a_result_that_cannot_be_written_is_told(stack: RunningStack, tmp_path: Path) -> None:
    done = stack.cli("run", "-q", "-w", str(tmp_path / "result"), f"{CALLS}::square", "--x", "2")
    assert done.returncode == 1
    assert "returned int: only str and bytes" in done.stderr


def test_an_entrypoint_chooses_the_exit_status(stack: RunningStack) -> None:
    assert stack.cli("run", "-q", f"{CALLS}::left", "--status", "5").returncode == 5


def test_a_generator_cannot_be_run(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{CALLS}::count", "--n", "3")
    assert done.returncode == 1
    assert "error: count is a generator" in done.stderr


def test_a_detached_function_is_run_to_its_end(stack: RunningStack) -> None:
    done = stack.cli("run", "-d", f"{CALLS}::chatty", "--word", "far")
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stderr


def test_a_script_comes_from_standard_input(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", "-", "--x", "7", input=APP + FUNCTION + ENTRYPOINT)
    assert done.stdout == "7\n", done.stderr


def test_a_module_of_a_package_is_run_with_its_relative_imports(stack: RunningStack, tmp_path: Path) -> None:
    package = tmp_path / "mill"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "wheel.py").write_text("TEETH = 12\n")
    (package / "main.py").write_text(
        f"from .wheel import TEETH\n{APP}{FUNCTION}{ENTRYPOINT}".replace("x: int = 1", "x: int = TEETH")
    )
    done = stack.cli("run", "-q", "-m", "mill.main", cwd=tmp_path)
    assert done.stdout == "12\n", done.stderr


def test_timestamps_are_put_in_front_of_lines(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", "--timestamps", f"{CALLS}::chatty", "--word", "now")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} said now\n", done.stdout), done.stdout


def test_the_name_and_environment_of_a_run_can_be_chosen(stack: RunningStack) -> None:
    done = stack.cli("run", "-n", "another", "-e", "main", f"{CALLS}::awaited")
    assert done.stdout == "9\n", done.stderr


def test_colour_is_for_terminals_that_want_it(stack: RunningStack) -> None:
    def shown(environment: dict[str, str]) -> str:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "tidemill.cli", "run", "nowhere.py"]
        process = start(command, environment, stderr=theirs, stdout=subprocess.PIPE)
        process.communicate(timeout=60)
        os.close(theirs)
        text = os.read(ours, 4096).decode()
        os.close(ours)
        return text

    terminal = {name: value for name, value in stack.environment.items() if name != "NO_COLOR"}
    assert "\x1b[" in shown(terminal | {"TERM": "xterm"})
    assert "\x1b[" not in shown(terminal | {"TERM": "xterm", "NO_COLOR": "1"})


def test_help_needs_little_of_python() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tidemill.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"asyncio", "rich", "nats", "msgpack", "cloudpickle", "uvloop"}
    assert "run " in done.stdout


def test_version_is_told(stack: RunningStack) -> None:
    assert re.fullmatch(r"tidemill \d+\.\d+\.\d+\n", stack.cli("version").stdout)
    assert stack.cli("--version").stdout == stack.cli("version").stdout
