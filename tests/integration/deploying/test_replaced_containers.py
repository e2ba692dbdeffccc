"""Containers make way for a new version, or for new ones of the same."""

import json
import os
import time
from pathlib import Path

import pytest
from running_stacks import RunningStack, wait_until

from tidemill import App, Client, Function


def deploy(client: Client, name: str, text: str, marks: Path, strategy: str = "rolling") -> None:
    """Deploy a version whose function leaves a mark, works long once if told to, and tells a text."""

    def work(long: bool = False) -> tuple[str, int]:
        is_first = not list(marks.iterdir())
        (marks / f"{text}-{time.time()}").touch()
        if long and is_first:
            time.sleep(100)
        return text, os.getpid()

    app = App(name)
    app.function(serialized=True, name="work", min_containers=1)(work)
    app.deploy(client=client, strategy=strategy)


def marked(marks: Path, text: str) -> int:
    return len(list(marks.glob(f"{text}-*")))


def containers(stack: RunningStack, name: str) -> set[str]:
    listed = json.loads(stack.cli("container", "list", "--json").stdout)
    return {one["container_id"] for one in listed if one["app_name"] == name}


def test_recreate_interrupts_what_runs_and_its_own_version_runs_it_again(
    client: Client, stack: RunningStack, name: str, tmp_path: Path
) -> None:
    deploy(client, name, "first", tmp_path)
    call = Function.from_name(name, "work", client=client).spawn(True)
    wait_until(lambda: marked(tmp_path, "first"), what="for the call to run")
    before = wait_until(lambda: containers(stack, name), what="for the report of its container")
    deploy(client, name, "second", tmp_path, strategy="recreate")
    wait_until(lambda: not before & containers(stack, name), what="for the report of its end")
    assert Function.from_name(name, "work", client=client).remote()[0] == "second"
    assert call.get(timeout=60)[0] == "first"  # it has no retries, and used up none
    assert marked(tmp_path, "first") == 2


@pytest.mark.parametrize("strategy", ["rolling", "recreate"])
def test_a_rollover_brings_new_processes_for_the_same_code(
    client: Client, stack: RunningStack, name: str, tmp_path: Path, strategy: str
) -> None:
    deploy(client, name, "only", tmp_path)
    function = Function.from_name(name, "work", client=client)
    _, before = function.remote()
    done = stack.cli("app", "rollover", name, "--strategy", strategy)
    assert done.returncode == 0, done.stderr
    if strategy == "recreate":
        assert "Terminating running containers" in done.stderr
        assert function.remote()[1] != before
    wait_until(lambda: function.remote()[1] != before, what="for another process")
