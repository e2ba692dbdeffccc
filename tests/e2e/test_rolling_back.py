"""Versions change under calls that run: no call is lost, each is finished by the version it was sent to."""

import sys
from pathlib import Path
from typing import Any

import pytest
from running_stacks import RunningStack, run

from tidemill import App, Client, Function, FunctionCall
from tidemill.exception import NotFoundError

PROGRAM = Path(__file__).parent / "programs" / "flavours.py"
CALLS = 4


def cli(stack: RunningStack, *arguments: str, flavour: str = "") -> None:
    command = [sys.executable, "-m", "tidemill.cli", *arguments]
    done = run(command, {**stack.environment, "FLAVOUR": flavour})
    assert done.returncode == 0, f"{done.stderr}\n{stack.logs()}"


@pytest.mark.parametrize("strategy", ["rolling", "recreate"])
def test_a_rollback_loses_no_call_that_runs(stack: RunningStack, client: Client, strategy: str) -> None:
    name = f"flavours-{strategy}"
    cli(stack, "deploy", "--name", name, str(PROGRAM), flavour="one")
    cli(stack, "deploy", "--name", name, str(PROGRAM), flavour="two")
    function: Function[Any, Any, Any] = Function.from_name(name, "flavour", client=client)
    assert function.remote() == "two"
    running = [function.spawn(1.0) for _ in range(CALLS)]
    cli(stack, "app", "rollback", name, "v1", "--strategy", strategy)
    assert function.remote() == "one"
    assert FunctionCall.gather(*running) == ["two"] * CALLS
    pinned: Function[Any, Any, Any] = Function.from_name(name, "flavour", version=2, client=client)
    assert pinned.remote() == "two"
    cli(stack, "app", "rollback", name)  # back to where it was before
    assert function.remote() == "two"
    App.lookup(name, client=client).stop()
    with pytest.raises(NotFoundError):
        Function.from_name(name, "flavour", client=client).remote()
