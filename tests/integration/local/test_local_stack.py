"""A stack on this machine: started, watched, told about, ended without a trace."""

import json
import os
import signal
import stat
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from running_stacks import RunningStack, is_gone, processes_of, run_cli, start, wait_until

PARTS = ["nats", "postgres", "registry", "scheduler", "gateway", "worker"]


def test_status_tells_every_part_and_worker(stack: RunningStack) -> None:
    done = stack.cli("status", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [part["name"] for part in told["parts"]] == PARTS
    for part in told["parts"]:
        assert psutil.pid_exists(part["pid"])
        assert part["state"] == "serving"
        assert part["address"]
        assert part["version"]
        assert Path(part["log"]).exists()
    assert {worker["runtime"] for worker in told["workers"]} == {"process"}
    table = stack.cli("status").stdout
    assert all(name in table for name in PARTS)


def test_the_files_of_a_stack_are_private(stack: RunningStack) -> None:
    for path in (stack.home, stack.home / "logs", stack.home / "nats"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in ("stack.json", "credentials.json"):
        assert stat.S_IMODE((stack.home / name).stat().st_mode) == 0o600


def test_one_home_has_one_stack(stack: RunningStack) -> None:
    before = stack.info.pid
    done = stack.cli("up")
    assert done.returncode == 0
    assert "already running" in done.stderr
    assert stack.info.pid == before


def test_a_second_supervisor_is_refused_the_home(stack: RunningStack) -> None:
    process = start([sys.executable, "-m", "tidemill_local", "up"], stack.environment)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "already running" in json.loads(output)["error"]
    assert stack.cli("status").returncode == 0


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_dies_is_started_again(mortal_stack: RunningStack, name: str) -> None:
    log, line = mortal_stack.home / "logs" / "supervisor.log", f"{name} ended with status -9"
    before = log.read_text().count(line)
    address = mortal_stack.part(name).address
    again = mortal_stack.wait_restarted(name, mortal_stack.kill(name))
    if name in ("nats", "postgres"):
        assert again.address == address  # who is connected finds it where it was
    wait_until(lambda: mortal_stack.cli("status").returncode == 0, what="for all parts to serve")
    assert log.read_text().count(line) == before + 1


def keepers(stack: RunningStack) -> list[psutil.Process]:
    """Return the keeper of a stack, if it has one at this moment."""
    return [child for child in psutil.Process(stack.info.pid).children() if is_keeper(child)]


def is_keeper(child: psutil.Process) -> bool:
    with suppress(psutil.Error):  # it has just died
        return "tidemill_local.keeper" in child.cmdline()
    return False


def test_a_dead_keeper_is_replaced(mortal_stack: RunningStack) -> None:
    (keeper,) = keepers(mortal_stack)
    keeper.kill()
    wait_until(
        lambda: [each.pid for each in keepers(mortal_stack)] not in ([], [keeper.pid]),
        what="for another keeper",
    )


def test_nothing_outlives_a_killed_supervisor_and_the_home_can_be_used_again(
    mortal_stack: RunningStack,
) -> None:
    (keeper,) = keepers(mortal_stack)
    os.kill(mortal_stack.info.pid, signal.SIGKILL)
    wait_until(lambda: processes_of(mortal_stack.home) == [], what="for all parts to be gone")
    wait_until(lambda: is_gone(keeper.pid), what="for the keeper, which holds the home until then")
    status = mortal_stack.cli("status")
    assert status.returncode == 1
    assert "no stack is running" in status.stderr
    done = mortal_stack.cli("up")
    assert done.returncode == 0, done.stderr
    assert mortal_stack.cli("status").returncode == 0


@pytest.mark.long
def test_what_a_killed_supervisor_and_keeper_left_is_ended_by_the_next_start(
    mortal_stack: RunningStack,
) -> None:
    supervisor = psutil.Process(mortal_stack.info.pid)
    worker = psutil.Process(mortal_stack.part("worker").pid)
    (keeper,) = keepers(mortal_stack)
    keeper.suspend()  # else another one is started
    supervisor.suspend()
    supervisor.kill()
    keeper.kill()
    worker.suspend()  # so that it cannot notice by itself
    assert mortal_stack.cli("up").returncode == 0
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert mortal_stack.cli("status").returncode == 0


def test_down_ends_every_process_and_keeps_the_data(mortal_stack: RunningStack) -> None:
    home, secret = mortal_stack.home, mortal_stack.info.token_secret
    done = mortal_stack.cli("down")
    assert (done.returncode, done.stderr) == (0, "Stopped\n")
    assert processes_of(home) == []
    assert (home / "postgres" / "data" / "PG_VERSION").exists()
    assert not (home / "stack.json").exists()
    assert mortal_stack.cli("up").returncode == 0
    assert mortal_stack.info.token_secret == secret  # scripts go on knowing it


def test_down_without_a_stack_says_so(no_stack: dict[str, str]) -> None:
    done = run_cli("down", environment=no_stack)
    assert (done.returncode, done.stderr) == (0, "No stack is running\n")


def test_a_stack_that_cannot_start_says_why_and_leaves_nothing(
    nothing_up: Path, no_stack: dict[str, str]
) -> None:
    done = run_cli("up", environment=no_stack | {"TIDEMILL_REPLICAS": "many"})
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert "ended at its start: " in error
    assert hint.startswith("hint: see ")
    assert processes_of(nothing_up) == []


@pytest.mark.long
def test_a_temporary_stack_ends_with_its_input(nothing_up: Path, no_stack: dict[str, str]) -> None:
    import subprocess

    command = [sys.executable, "-m", "tidemill_local", "temporary"]
    first = start(command, no_stack, stdin=subprocess.PIPE)
    second = start(command, no_stack, stdin=subprocess.PIPE)
    told = [json.loads(process.stdout.readline()) for process in (first, second)]
    assert told[0]["folder"] != told[1]["folder"]
    assert all(Path(each["folder"]).parent == nothing_up for each in told)
    for process in (first, second):
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert processes_of(nothing_up) == []
    assert list(nothing_up.glob("tidemill-*")) == []


def test_a_signal_ends_a_stack_that_is_only_starting(nothing_up: Path, no_stack: dict[str, str]) -> None:
    import subprocess

    process = start([sys.executable, "-m", "tidemill_local", "temporary"], no_stack, stdin=subprocess.PIPE)
    wait_until(lambda: list(nothing_up.glob("tidemill-*/logs/worker.log")), what="for the worker's start")
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert processes_of(nothing_up) == []
    assert list(nothing_up.glob("tidemill-*")) == []
    process.communicate(timeout=60)
