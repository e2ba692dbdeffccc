"""Functions that need GPUs: told what is missing, run where there are some, and never lost."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running_stacks import RunningStack, start, wait_until

ROOT = Path(__file__).parents[2]
LOAD = Path(__file__).parent / "programs" / "gpu_load.py"


class Fleet:
    """Workers of the tests' own beside the stack's, with GPUs that they declare."""

    def __init__(self, stack: RunningStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.running: list[subprocess.Popen[str]] = []

    def start(self, gpus: str) -> subprocess.Popen[str]:
        kept = json.loads((self._stack.home / "credentials.json").read_text())
        settings = {
            "TIDEMILL_NATS_URL": self._stack.info.server_url,
            "TIDEMILL_NATS_USER": kept["worker"],
            "TIDEMILL_NATS_PASSWORD": kept["worker_secret"],
            "TIDEMILL_DATA_DIR": str(self._folder / "worker"),
            "TIDEMILL_RUNTIME": "process",
            "TIDEMILL_ALLOW_UNISOLATED": "1",
            "TIDEMILL_WORKER_GPUS": gpus,
            "TIDEMILL_WORKER_CPU": "2",
        }
        with (self._folder / f"worker-{len(self.running)}.log").open("w") as log:
            self.running.append(
                start(
                    [sys.executable, "-m", "tidemill_worker"],
                    {**os.environ, **settings},
                    stdout=log,
                    stderr=log,
                )
            )
        return self.running[-1]

    def end(self) -> None:
        for worker in self.running:
            worker.terminate()
        for worker in self.running:
            with suppress(subprocess.TimeoutExpired):
                worker.wait(30)
            worker.kill()
            worker.wait()


@pytest.fixture
def fleet(stack: RunningStack, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(stack, tmp_path)
    yield fleet
    fleet.end()


def shown(page: str) -> tuple[str, str]:
    """Return the program of a page, and what it is said to print."""
    text = (ROOT / "docs" / page).read_text()
    program, said = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "console"))
    assert program
    assert said
    return program[1], said[1].partition("\n")[2]


def test_a_call_that_no_worker_can_run_says_what_is_missing_and_runs_when_one_comes(
    stack: RunningStack, fleet: Fleet, tmp_path: Path
) -> None:
    program, output = shown("gpus.md")
    (tmp_path / "gpu.py").write_text(program)
    with (tmp_path / "errors").open("w") as errors:
        call = stack.start_cli("run", "-q", str(tmp_path / "gpu.py"), stderr=errors)
    said = "no worker has a GPU of type H100; there are: "
    wait_until(lambda: said in (tmp_path / "errors").read_text(), what="to hear what is missing")
    assert call.poll() is None
    fleet.start("H100")
    assert call.communicate(timeout=90)[0] == output

    def is_free_again() -> bool:
        """Tell whether the worker has reported that the GPU can be had: a moment after the run's end."""
        listed = json.loads(stack.cli("worker", "list", "--json").stdout)
        return "1 of 1 H100" in [each["gpus"] for each in listed]

    wait_until(is_free_again, what="for the GPU to be free")
    assert "declared" in stack.cli("status", "--verbose").stdout


@pytest.mark.long
def test_two_kinds_of_workers_lose_nothing_when_the_one_with_gpus_is_killed_under_load(
    stack: RunningStack, fleet: Fleet, tmp_path: Path
) -> None:
    first = fleet.start("L4:2")
    program = stack.start_cli("run", "-q", f"{LOAD}::load", "--folder", str(tmp_path))
    wait_until(lambda: len(list(tmp_path.glob("gpu-*"))) >= 7, 60, "for calls on GPUs to run")
    # Meanwhile its leases are known, so that nobody has to wait until they have run out.
    assert "of 2 L4" in stack.cli("worker", "list").stdout
    first.kill()
    first.wait()
    (tmp_path / "go").touch()
    fleet.start("T4,L4")
    output, errors = program.communicate(timeout=90)
    assert program.returncode == 0, f"{errors}\n{stack.logs()}"
    assert output == "40 on GPUs, 40 without\n"
