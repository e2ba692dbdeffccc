"""Apps on a whole stack: what `App.run` starts, shows and leaves behind."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
from running_stacks import RunningStack, clean_environment

import tidemill
from tidemill import App, Client, _output
from tidemill._wire.apps import AppInfo
from tidemill.exception import ExecutionError, InvalidError, UnimplementedError

HERE = Path(__file__).parent

Record = Callable[[str], AppInfo]


def test_functions_can_be_called_while_their_app_runs(client: Client) -> None:
    with programs.app.run(client=client) as running:
        assert running is programs.app
        assert running.is_running
        assert programs.square.remote(7) == 49
        assert list(programs.count.remote_gen(3)) == [0, 1, 2]
    with pytest.raises(ExecutionError, match="outside of a running app"):
        programs.square.remote(7)


async def test_an_app_runs_in_async_code_too(client: Client) -> None:
    async with programs.app.run(client=client):
        assert await programs.square.remote.aio(3) == 9
    async with programs.app.run.aio(client=client):
        assert await programs.square.remote.aio(4) == 16


def test_every_run_is_an_app_of_its_own_and_ends(client: Client, record_of: Record) -> None:
    ids = []
    for _ in range(2):
        with programs.app.run(client=client, name="renamed"):
            assert programs.app.app_id is not None
            ids.append(programs.app.app_id)
            assert record_of(ids[-1]).state == "ephemeral"
    records = [record_of(app_id) for app_id in ids]
    assert len(set(ids)) == 2
    assert [(record.name, record.state, record.stop_reason) for record in records] == [
        ("renamed", "stopped", "completed")
    ] * 2
    assert programs.app.app_id == ids[-1]


def test_tags_and_names_are_recorded(client: Client, record_of: Record) -> None:
    app = App("tagged", tags={"team": "tide"})
    app.include(programs.other)
    with app.run(client=client):
        assert app.app_id is not None
        record = record_of(app.app_id)
        assert (record.name, record.tags, record.functions) == ("tagged", {"team": "tide"}, 1)


def test_an_app_without_functions_runs(client: Client) -> None:
    with App().run(client=client) as app:
        assert app.app_id is not None


def test_an_app_runs_once_at_a_time(client: Client) -> None:
    with programs.app.run(client=client):
        with pytest.raises(InvalidError, match="already running"), programs.app.run(client=client):
            pass
        assert programs.square.remote(2) == 4


def test_two_apps_run_beside_each_other(client: Client) -> None:
    with programs.app.run(client=client), programs.other.run(client=client):
        assert programs.negated.remote(programs.square.remote(3)) == -9


def test_an_included_function_is_called_through_the_app_that_runs(client: Client) -> None:
    app = App("outer").include(programs.other)
    with app.run(client=client):
        assert programs.negated.remote(5) == -5


def test_a_function_in_two_running_apps_is_called_through_the_one_begun_last(client: Client) -> None:
    outer = App("outer").include(programs.other)
    with outer.run(client=client):
        ids = [programs.negated.object_id]
        with programs.other.run(client=client):
            ids.append(programs.negated.object_id)
            assert programs.negated.remote(1) == -1
        ids.append(programs.negated.object_id)
        assert programs.negated.remote(2) == -2
    assert ids[0] == ids[2] != ids[1]


def test_an_exception_in_the_block_stops_the_app(client: Client, record_of: Record) -> None:
    with pytest.raises(ValueError, match="local"), programs.app.run(client=client):
        raise ValueError("local")
    assert programs.app.app_id is not None
    record = record_of(programs.app.app_id)
    assert (record.state, record.stop_reason) == ("stopped", "uncaught exception raised locally: ValueError")


def test_a_detached_app_goes_on(
    client: Client, record_of: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    with _output.show(), programs.other.run(client=client, detach=True):
        pass
    assert programs.other.app_id is not None
    assert record_of(programs.other.app_id).state == "detached"
    assert f"{programs.other.app_id} goes on" in capsys.readouterr().err


def test_what_cannot_be_published_leaves_no_app_behind(client: Client) -> None:
    app = App("refused")
    app.function(name="f" * 64)(programs.square.get_raw_f())
    app.function(volumes={"/data": tidemill.Volume.from_name("v")})(programs.negated.get_raw_f())
    with pytest.raises(UnimplementedError, match="/data"), app.run(client=client):
        pass
    assert app.app_id is None


# --- what functions get


def test_variables_come_from_image_secrets_and_function(client: Client) -> None:
    with programs.app.run(client=client):
        assert programs.environment.remote() == {
            "FROM_IMAGE": "image",
            "FROM_SECRET": "secret",
            "FROM_ENV": "env",
            "CHANGED": "env",
        }


def test_local_modules_go_along(client: Client) -> None:
    with programs.app.run(client=client):
        assert programs.tripled.remote(5) == 15


def test_a_local_module_that_was_forgotten_is_named(client: Client) -> None:
    with pytest.raises(ModuleNotFoundError) as caught, programs.forgetful.run(client=client):
        programs.needs_a_library.remote()
    assert any(".add_local_python_source('local_library')" in note for note in caught.value.__notes__)


def test_a_serialized_function_needs_no_module(client: Client) -> None:
    app = App("serialized")
    number = 40

    def inner(x: int) -> int:
        return number + x

    function = app.function(serialized=True)(inner)
    twice = app.function(serialized=True, name="twice")(lambda x: [function.remote(x), function.remote(x)])
    with app.run(client=client):
        assert function.remote(2) == 42
        assert twice.remote(1) == [41, 41]


def test_a_function_of_an_interactive_session_runs(stack: RunningStack) -> None:
    session = (
        "import modal\napp = modal.App('session')\nnumber = 40\n"
        "@app.function()\ndef add(x):\n    return number + x\n\n"
        "with app.run(): print(add.remote(2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"from tidemill import _alias; _alias.install()\n{session}"],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "42\n", done.stderr


def test_a_function_runs_an_app_of_its_own(client: Client) -> None:
    with programs.app.run(client=client):
        assert programs.runs_another_app.remote(4) == -4


# --- what is shown


def test_output_and_progress_go_to_their_streams(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    with _output.show(), programs.app.run(client=client):
        programs.both_streams.remote()
    captured = capsys.readouterr()
    assert captured.out == "to output\nno end"
    shown = captured.err.splitlines()
    assert shown[0].startswith("✓ Initialized.")
    assert shown[1:3] == ["✓ Created objects.", "├── Created function square."]
    assert "to errors" in shown
    assert shown[-1].startswith("✓ App completed.")


def test_what_a_function_printed_is_there_before_its_result(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with _output.show(quiet=True), programs.app.run(client=client):
        for x in range(3):
            print(programs.square.remote(x))
    assert capsys.readouterr().out == "squaring 0\n0\nsquaring 1\n1\nsquaring 2\n4\n"


def test_the_last_words_of_containers_are_heard(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    with _output.show(quiet=True), programs.app.run(client=client):
        programs.chatty.spawn(2_000).get()
    assert capsys.readouterr().out == "".join(f"line {number}\n" for number in range(2_000))


def test_without_output_nothing_is_shown(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    with programs.app.run(client=client):
        programs.both_streams.remote()
    assert capsys.readouterr() == ("", "")


# --- programs of their own


@contextlib.contextmanager
def started(program: str, stack: RunningStack) -> Iterator[Any]:
    """Run a program; kill it if the test gives up."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=HERE, env=stack.environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


PROGRAM = """
import programs, tidemill
with tidemill.enable_output(), programs.app.run():
    print("running", flush=True)
    programs.sleepy.remote(60)
"""


def test_an_interrupted_program_stops_its_app(stack: RunningStack) -> None:
    with started(PROGRAM, stack) as process:
        while "asleep" not in (line := process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(60) == -signal.SIGINT
    assert "App aborted." in errors
    assert "KeyboardInterrupt" in errors


SLOW = """
import programs, tidemill
with tidemill.enable_output(), programs.app.run():
    programs.slowly.remote(150)
"""


def test_a_broker_that_restarts_loses_no_output_and_repeats_none(mortal_stack: RunningStack) -> None:
    with started(SLOW, mortal_stack) as process:
        shown = [process.stdout.readline() for _ in range(30)]
        mortal_stack.wait_restarted("nats", mortal_stack.kill("nats"))
        shown.append(process.stdout.read())
        assert process.wait(60) == 0, process.stderr.read()
    assert "".join(shown) == "".join(f"line {number}\n" for number in range(150))


KILLED = """
import os, programs, signal, tidemill
with programs.app.run():
    print(programs.app.app_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_app_of_a_killed_program_is_not_forgotten(stack: RunningStack, record_of: Record) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        cwd=HERE,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    assert record_of(done.stdout.strip()).state == "ephemeral"  # until the registry misses its signs of life


def test_a_program_of_a_package_brings_the_package(stack: RunningStack, tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "numbers.py").write_text("SEVEN = 7\n")
    (package / "program.py").write_text(
        "import modal\nfrom .numbers import SEVEN\napp = modal.App('pkg')\n\n"
        "@app.function()\ndef times(x):\n    from pkg import numbers\n    return x * numbers.SEVEN\n\n"
        "if __name__ == '__main__':\n    with app.run():\n        print(times.remote(SEVEN))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tidemill", "-m", "pkg.program"],
        cwd=tmp_path,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "49\n", done.stderr


def test_without_a_server_the_error_has_a_hint(tmp_path: Path) -> None:
    environment = {**clean_environment(tmp_path), "TIDEMILL_SERVER_URL": "nats://127.0.0.1:9"}
    program = (
        "import tidemill\ntry:\n    tidemill.App('a').run().__enter__()\n"
        "except tidemill.exception.ConnectionError as error:\n    print(error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "TIDEMILL_SERVER_URL" in done.stdout
