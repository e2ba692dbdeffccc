"""Calls finish, once, whatever process dies under them."""

from pathlib import Path

import pytest
from running_stacks import RunningStack, wait_until

from tidemill import Function
from tidemill.exception import NotFoundError

PROGRAM = Path(__file__).parent / "programs" / "losses.py"


def finish(process, stack: RunningStack, timeout: float = 90) -> str:
    output, errors = process.communicate(timeout=timeout)
    assert process.returncode == 0, f"{errors}\n{stack.logs()}"
    return output


def attempts(folder: Path, name: str) -> int:
    return len(list(folder.glob(f"{name}-*")))


def test_a_call_whose_worker_is_killed_finishes_without_using_a_retry(
    mortal_stack: RunningStack, tmp_path: Path
) -> None:
    process = mortal_stack.start_cli("run", "-q", f"{PROGRAM}::lost_worker", "--folder", str(tmp_path))
    wait_until(lambda: attempts(tmp_path, "attempt") == 1, what="for the first attempt")
    mortal_stack.kill("worker")
    assert finish(process, mortal_stack) == "1\n"
    assert attempts(tmp_path, "attempt") == 2


def test_a_call_whose_container_is_killed_finishes_without_using_a_retry(
    mortal_stack: RunningStack, tmp_path: Path
) -> None:
    import os
    import signal

    process = mortal_stack.start_cli("run", "-q", f"{PROGRAM}::lost_worker", "--folder", str(tmp_path))
    wait_until(lambda: attempts(tmp_path, "attempt") == 1, what="for the first attempt")
    mark = tmp_path / "attempt-0"
    os.kill(int(wait_until(mark.read_text)), signal.SIGKILL)
    assert finish(process, mortal_stack) == "1\n"


@pytest.mark.parametrize("victims", [("scheduler",), ("registry",), ("scheduler", "registry", "gateway")])
def test_a_call_survives_the_restart_of_services(
    mortal_stack: RunningStack, tmp_path: Path, victims: tuple[str, ...]
) -> None:
    process = mortal_stack.start_cli("run", "-q", f"{PROGRAM}::lost_services", "--folder", str(tmp_path))
    wait_until(lambda: attempts(tmp_path, "waiting") == 1, what="for the call to run")
    killed = {name: mortal_stack.kill(name) for name in victims}
    for name, pid in killed.items():
        mortal_stack.wait_restarted(name, pid)
    (tmp_path / "go").touch()
    assert finish(process, mortal_stack) == "went\n2\n"
    assert attempts(tmp_path, "waiting") == 1


def test_a_call_survives_the_restart_of_the_database(mortal_stack: RunningStack, tmp_path: Path) -> None:
    process = mortal_stack.start_cli("run", "-q", f"{PROGRAM}::lost_services", "--folder", str(tmp_path))
    wait_until(lambda: attempts(tmp_path, "waiting") == 1, what="for the call to run")
    mortal_stack.wait_restarted("postgres", mortal_stack.kill("postgres"))
    (tmp_path / "go").touch()
    assert finish(process, mortal_stack) == "went\n2\n"
    wait_until(mortal_stack.serves, what="for the registry, which is started again with its database")
    again = mortal_stack.cli("run", "-q", f"{PROGRAM}::cold", "--x", "1")
    assert again.returncode == 0, again.stderr


def test_who_waits_for_a_kept_result_outlives_a_restart_of_nats(
    mortal_stack: RunningStack, tmp_path: Path
) -> None:
    process = mortal_stack.start_cli("run", "-q", f"{PROGRAM}::kept", "--folder", str(tmp_path))
    wait_until(lambda: attempts(tmp_path, "waiting") == 1, what="for the call to run")
    mortal_stack.wait_restarted("nats", mortal_stack.kill("nats"))
    (tmp_path / "go").touch()
    assert finish(process, mortal_stack) == "went\n"
    assert attempts(tmp_path, "waiting") == 1


def test_a_request_waits_for_a_connection_that_was_lost(mortal_stack: RunningStack) -> None:
    with mortal_stack.client() as client:
        nowhere = Function.from_name("nowhere", "nothing", client=client)
        for _ in range(2):
            killed = mortal_stack.kill("nats")
            with pytest.raises(NotFoundError):
                nowhere.hydrate()
            mortal_stack.wait_restarted("nats", killed)  # told a moment after it serves


@pytest.mark.parametrize("order", ["--ordered", "--no-ordered"])
def test_nats_restarted_during_a_map_loses_and_doubles_nothing(
    mortal_stack: RunningStack, tmp_path: Path, order: str
) -> None:
    process = mortal_stack.start_cli("run", "-q", f"{PROGRAM}::long_map", "--folder", str(tmp_path), order)
    wait_until((tmp_path / "under-way").exists, what="for the map to be under way")
    mortal_stack.wait_restarted("nats", mortal_stack.kill("nats"))
    assert finish(process, mortal_stack) == "exact\n"


@pytest.mark.long
def test_a_function_that_holds_the_gil_for_longer_than_its_lease_runs_once(
    stack: RunningStack, tmp_path: Path
) -> None:
    # The lease of an input is 30 s: see `streams.pool_consumer`.
    done = stack.cli("run", "-q", f"{PROGRAM}::gil", "--folder", str(tmp_path), "--seconds", "34")
    assert done.stdout == "0\n", done.stderr
    assert attempts(tmp_path, "held") == 1
