"""Schedules fire, whatever process dies."""

import itertools
import json
from pathlib import Path

import pytest
from running_stacks import RunningStack, wait_until

PROGRAM = Path(__file__).parent / "programs" / "scheduled.py"
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


def due(call: str) -> int:
    """Return when a call's firing was due, in milliseconds, as its id says."""
    number = 0
    for letter in call.partition("-")[2][:10]:
        number = number * 32 + DIGITS.index(letter)
    return number


def whole_until(calls: list[str]) -> int:
    """Return the moment until which each second has its call, from the first on."""
    moments = {due(call) for call in calls}
    seconds = itertools.count(min(moments), 1_000)
    return next(moment for moment in seconds if moment + 1_000 not in moments)


def check_commands(stack: RunningStack) -> None:
    """Look at the schedule, and call its function besides."""
    every = json.loads(stack.cli("schedule", "list", "--json").stdout)
    assert {"fails_once", "tick"} <= {each["function"] for each in every}
    listed = next(each for each in every if each["function"] == "fails_once")
    assert listed["next"]
    assert listed["schedule"] == "Period(seconds=1)"
    shown = json.loads(stack.cli("schedule", "info", listed["schedule_id"], "--json").stdout)
    assert (shown["function"], shown["schedule"]) == (listed["function"], listed["schedule"])
    called = stack.cli("schedule", "run", listed["schedule_id"])
    assert called.stdout.startswith("fc-"), called.stderr
    missing = stack.cli("schedule", "info", "sc-none")
    assert (missing.returncode, missing.stderr.count("hint:")) == (1, 1)


@pytest.mark.long
def test_no_firing_is_missed_while_everything_but_nats_is_killed(
    mortal_stack: RunningStack, tmp_path: Path
) -> None:
    process = mortal_stack.start_cli("run", "-q", str(PROGRAM), environment={"MARKS": str(tmp_path)})

    def calls() -> list[str]:
        return [mark.name.removeprefix("call-") for mark in tmp_path.glob("call-*")]

    wait_until(lambda: len(calls()) >= 2 or process.poll() is not None, 60, "for the schedule to fire")
    wait_until((tmp_path / "together").exists, 60, "for two runs of one schedule at a time")
    check_commands(mortal_stack)
    victims = {name: mortal_stack.kill(name) for name in ("scheduler", "registry", "worker")}
    for name, pid in victims.items():
        mortal_stack.wait_restarted(name, pid)
    seen = max(map(due, calls()))  # those before it that the worker had taken come again after it
    wait_until(
        lambda: whole_until(calls()) >= seen + 3_000, 60, "for it to fire again, and for what was lost"
    )
    wait_until(lambda: list(tmp_path.glob("try-*-1")), 60, "for a call that failed to be tried again")
    (tmp_path / "stop").touch()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, f"{errors}\n{mortal_stack.logs()}"
    moments = [due(call) for call in calls()]
    assert len(set(moments)) == len(moments)
    assert {(moment - moments[0]) % 1_000 for moment in moments} == {0}
