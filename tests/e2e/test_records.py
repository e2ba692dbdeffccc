"""What happened can be told afterwards: call graphs, dead letters and logs, by SDK and command line."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running_stacks import RunningStack, wait_until

from tidemill._wire.phases import OF_START

TREE = Path(__file__).parent / "programs" / "tree.py"

Record = dict[str, Any]


def recorded(stack: RunningStack, call: str, is_so: Callable[[Record], object]) -> Record:
    """Return what is recorded of a call once it is so: records follow what they tell of."""

    def look() -> Record | None:
        found: Record | None = json.loads(stack.cli("call", "info", call, "--json").stdout or "null")
        return found if found and is_so(found) else None

    record: Record = wait_until(look, what=f"for the record of {call}")
    return record


def test_the_graph_of_a_call_is_exact_over_every_kind_of_call(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{TREE}::graph")
    assert done.returncode == 0, done.stderr
    said, shape, *rest, call = done.stdout.splitlines()
    assert said == "the trunk"
    leaves = [("leaf", "FAILURE", []), ("leaf", "SUCCESS", []), ("leaf", "SUCCESS", [])]
    branch = ("branch", "SUCCESS", [*leaves, ("sleeps", "PENDING", [])])
    down = ("down", "SUCCESS", [("down", "SUCCESS", [("down", "SUCCESS", [])])])
    assert shape == str([("trunk", "SUCCESS", [branch, down])])
    assert rest == ["True", "tree True", "1", "1"]
    is_whole = {"status": "success", "graph": "terminated"}
    record = recorded(
        stack, call, lambda found: all(text in str(found[key]) for key, text in is_whole.items())
    )
    shown = stack.cli("call", "info", call)
    assert shown.stdout.count("── leaf  ") == 3, shown.stderr
    assert "sleeps  terminated" in shown.stdout
    assert (record["status"], record["num_inputs"], record["function"]) == ("success", 1, "trunk")
    assert record["inputs"][0]["started_at"] > record["inputs"][0]["queued_at"]
    assert list(record["inputs"][0]["phases"]) == ["queue", *OF_START, "run"], "it waited for a container"
    assert "enter " in shown.stdout
    (root,) = record["graph"]
    assert {child["function_name"] for child in root["children"]} == {"branch", "down"}


def test_calls_of_many_inputs_are_recorded_to_a_bound_and_timeouts_as_such(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{TREE}::counted")
    assert done.stdout == "{'SUCCESS'} 500\nTIMEOUT\n", done.stderr

    def is_counted() -> bool:
        listed = json.loads(stack.cli("call", "list", "--function", "leaf", "--json").stdout)
        return [call["counts"] for call in listed if call["num_inputs"] == 1_500] == [{"success": 1_500}]

    wait_until(is_counted, what="for all inputs to be recorded")
    assert "leaf" in stack.cli("call", "list", "--status", "success").stdout


def test_what_was_given_up_is_shown_and_replayed_once(stack: RunningStack) -> None:
    running = stack.start_cli("run", "-q", f"{TREE}::buried", stdin=subprocess.PIPE)
    assert running.stdout is not None
    app, call = running.stdout.readline().split()
    letters = wait_until(lambda: json.loads(stack.cli("dead", "list", "--app", app, "--json").stdout))
    (letter,) = letters
    assert (letter["call_id"], letter["reason"]) == (call, "failed 2 times: no retry is left")
    info = stack.cli("dead", "info", letter["input_id"])
    assert info.stdout.count("ValueError: -1") >= 3, info.stderr
    assert "in fails" in info.stdout
    first, second = (stack.cli("dead", "replay", letter["input_id"]) for _ in range(2))
    assert first.stdout == second.stdout
    assert "was replayed before" in second.stderr
    assert "was replayed before" not in first.stderr
    again = first.stdout.strip()
    details = recorded(stack, again, lambda found: found["status"] != "pending")
    assert (details["status"], details["function"]) == ("failure", "fails")
    running.communicate("\n", timeout=60)
    assert running.returncode == 0


def test_output_is_read_by_app_function_and_call(stack: RunningStack) -> None:
    done = stack.cli("run", "-q", f"{TREE}::logs")
    assert done.returncode == 0, done.stderr
    *_, of_call, of_function, found, last = done.stdout.splitlines()
    assert of_call == "['the trunk\\n']"
    assert of_function == "[('failing with 2\\n', 'stderr')]"
    assert found == "['failing with 1\\n']"
    count, app = last.split()
    lines = ["the trunk\n", "failing with 1\n", "failing with 2\n"]
    everything = stack.cli("app", "logs", app).stdout.splitlines(keepends=True)
    assert len(everything) == int(count)
    assert [line for line in everything if line in lines] == lines
    assert everything.count("ValueError: two\n") == 1  # told by the container itself
    assert stack.cli("app", "logs", app, "-n", "1", "--function", "trunk").stdout == lines[0]
    assert stack.cli("app", "logs", app, "--since", "1h", "--function", "fails").stdout == "".join(lines[1:])
    assert stack.cli("app", "logs", app, "-f", "--search", "with 2").stdout == lines[2]  # it has stopped
    shown = stack.cli("app", "logs", app, "--search", "trunk", "--timestamps", "--show-container-id").stdout
    container = shown.split()[-3]
    assert shown.endswith(f" {container} the trunk\n")
    assert stack.cli("container", "logs", container, "--all").stdout.startswith("the trunk\n")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("app", "logs", "ap-nothing"), "there is no app 'ap-nothing'"),
        (("app", "logs", "ap-x", "-f", "--since", "1h"), "--follow goes with neither"),
        (("container", "logs", "co-x", "--all", "-n", "3"), "--all goes with neither"),
        (("container", "logs", "co-nothing"), "no container co-nothing runs"),
        (("container", "stop", "co-nothing"), "nobody is there to confirm it"),
        (("call", "info", "fc-nothing"), "nothing is recorded about fc-nothing"),
        (("call", "list", "--since", "soon"), "not a time: 'soon'"),
        (("dead", "replay", "in-1-0"), "there is no dead letter of in-1-0"),
        (("dead", "info", "letter"), "not the id of an input"),
    ],
)
def test_what_cannot_be_shown_is_explained(
    stack: RunningStack, arguments: tuple[str, ...], error: str
) -> None:
    done = stack.cli(*arguments)
    assert done.returncode in (1, 2)
    assert f"error: {error}" in done.stderr or error in done.stderr
