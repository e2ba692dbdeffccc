"""How many containers a function has can be changed, until its app is deployed again."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running_stacks import RunningStack, wait_until

from tidemill import App, Client, Function
from tidemill.exception import ConflictError, InvalidError, NotFoundError
from tidemill.types import FunctionAutoscalerSettings, FunctionCurrentStats

Deploy = Callable[..., App]
DEFAULTS = FunctionAutoscalerSettings(0, None, 60.0, 0)


def test_settings_hold_until_the_next_deployment(client: Client, name: str, deploy: Deploy) -> None:
    deploy(number=1)
    function = Function.from_name(name, "number", client=client)
    assert function.autoscaler.settings() == DEFAULTS
    changed = function.update_autoscaler(max_containers=3, scaledown_window=30)
    assert changed == FunctionAutoscalerSettings(0, 3, 30.0, 0)
    assert function.autoscaler.update(buffer_containers=1) == FunctionAutoscalerSettings(0, 3, 30.0, 1)
    deploy(number=1)  # the same code: no new version, and yet a deployment
    assert function.autoscaler.settings() == DEFAULTS


def test_a_minimum_starts_containers_without_a_call(client: Client, name: str, deploy: Deploy) -> None:
    deploy(number=1)
    function = Function.from_name(name, "number", client=client)
    assert function.get_current_stats() == FunctionCurrentStats(0, 0, 0, 0)
    function.update_autoscaler(min_containers=1)
    wait_until(lambda: function.get_current_stats() == FunctionCurrentStats(0, 1, 0, 1))


def test_every_setting_takes_effect_at_once(client: Client, name: str, deploy: Deploy) -> None:
    def slow() -> None:
        __import__("time").sleep(60)

    deploy(slow=slow)
    function = Function.from_name(name, "slow", client=client)

    def containers(count: int) -> None:
        wait_until(lambda: function.get_current_stats().num_total_runners == count)

    function.update_autoscaler(min_containers=3)
    containers(3)
    function.update_autoscaler(min_containers=0, max_containers=2)
    containers(2)  # one that idles goes, though its window is a minute
    function.update_autoscaler(scaledown_window=2)
    containers(0)
    call = function.spawn()
    wait_until(lambda: function.get_current_stats().num_running_inputs == 1)
    function.update_autoscaler(buffer_containers=1)
    containers(2)
    call.cancel()
    containers(0)


async def test_both_can_be_awaited(client: Client, name: str, deploy: Deploy) -> None:
    await asyncio.to_thread(deploy, number=1)
    function = Function.from_name(name, "number", client=client)
    assert (await function.update_autoscaler.aio(max_containers=2)).max_containers == 2
    assert (await function.autoscaler.settings.aio()).max_containers == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_containers": -1}, "min_containers"),
        ({"max_containers": 0}, "max_containers"),
        ({"scaledown_window": 1}, "scaledown_window"),
        ({"min_containers": 3, "max_containers": 2}, "above max_containers"),
        ({"min_containers": 3}, "at least min_containers"),  # above the maximum that is set
    ],
)
def test_settings_that_cannot_be_change_nothing(
    client: Client, name: str, deploy: Deploy, given: dict[str, Any], message: str
) -> None:
    deploy(number=1)
    function = Function.from_name(name, "number", client=client)
    before = function.update_autoscaler(max_containers=2)
    with pytest.raises(InvalidError, match=message):
        function.update_autoscaler(**given)
    assert function.autoscaler.settings() == before


def test_an_earlier_version_keeps_its_settings(client: Client, name: str, deploy: Deploy) -> None:
    deploy(number=1)
    deploy(number=2)
    with pytest.raises(ConflictError, match="newer version"):
        Function.from_name(name, "number", version=1, client=client).update_autoscaler(min_containers=1)


def test_a_function_that_is_not_there_has_no_settings(client: Client) -> None:
    with pytest.raises(NotFoundError):
        Function.from_name("no-such-app", "f", client=client).autoscaler.settings()


def test_what_waits_and_what_runs_is_counted(
    client: Client, name: str, deploy: Deploy, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")

    def wait() -> None:
        import os
        import time

        while not os.path.exists(gate):
            time.sleep(0.01)

    deploy(wait=wait)
    function = Function.from_name(name, "wait", client=client)
    function.update_autoscaler(max_containers=1)
    calls = [threading.Thread(target=function.remote) for _ in range(3)]
    for call in calls:
        call.start()

    def all_are_seen() -> bool:
        now = function.get_current_stats()
        return (now.num_total_runners, now.input_headroom, now.backlog + now.num_running_inputs) == (1, 0, 3)

    wait_until(all_are_seen)
    Path(gate).touch()
    for call in calls:
        call.join()


def test_the_command_line_does_the_same(stack: RunningStack, name: str, deploy: Deploy) -> None:
    deploy(number=1)
    arguments = ("function", "autoscaler", "update", name, "number", "--max-containers", "4", "--json")
    assert json.loads(stack.cli(*arguments).stdout)["max_containers"] == 4
    shown = stack.cli("function", "autoscaler", "settings", name, "number").stdout
    assert "Max containers     4" in shown
    assert json.loads(stack.cli("function", "stats", name, "number", "--json").stdout)["backlog"] == 0
    assert json.loads(stack.cli("function", "info", name, "number", "--json").stdout)["name"] == "number"
    assert stack.cli("function", "autoscaler", "update", name, "number").returncode == 2
