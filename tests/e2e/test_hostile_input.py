"""Bad input of every kind gives one clear error, and everything is usable afterwards."""

from pathlib import Path

import pytest
from running_stacks import RunningStack, run_cli

PROGRAM = Path(__file__).parent / "programs" / "hostile.py"
SEND_PLAIN = "send plain data instead, and open files, locks and connections where they are used"

# What a function does -> how that looks to its caller.
RESULTS = {
    "circle": "ValueError: first |",
    "endless recursion": "RecursionError: maximum recursion depth exceeded",
    "nested result": "SerializationError: a list cannot be pickled: PicklingError: ",
    "error with a lock": "ValueError: has a lock |",
    "error with odd notes": "ValueError: odd notes |",
    "large error": "ValueError: ('xxx",
    "group": "ExceptionGroup: several (2 sub-exceptions) |",
    "bad reduce": "RemoteError: BadReduce: it |",
    "bad text": "BadText: BadText |",
    "nameless": "RemoteError: an exception that cannot be described (RuntimeError: no name) |",
    "base exception": "Own: it |",
    "exit": "SystemExit: 3 |",
    "interrupt": "RemoteError: the container exited with status 130 during the input |",
    "ended process": "RemoteError: the container exited with status 9 during the input |",
    "crash": "RemoteError: the container crashed (aborted) during the input |",
    "locked result": "SerializationError: a lock cannot be pickled: TypeError: ",
    "result that exits": "DeserializationError: the result cannot be read: reading a value here raised ",
    "result above the limit": "RequestSizeError: the result would take 300,005 bytes, the limit is 200,000 |",
    "fine": "returned 'fine'",
    "afterwards": "returned 'fine'",
}

ARGUMENTS = {
    "unwritable": "SerializationError: the arguments cannot be pickled: RuntimeError: not to be written |",
    "lock": "SerializationError: the arguments cannot be pickled: TypeError: cannot pickle '_thread.lock' "
    f"object | {SEND_PLAIN}",
    "exits": "DeserializationError: reading a value in the container raised SystemExit: 3 |",
    "nested": "SerializationError: the arguments cannot be pickled: PicklingError: ",
    "above the limit": "RequestSizeError: the arguments would take 500,",
}


def said(stack: RunningStack, *words: str, **variables: str) -> dict[str, str]:
    target, *options = words
    reference = f"{PROGRAM}::{target}"
    done = run_cli("run", "-q", reference, *options, environment=stack.environment | variables)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" = ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("way", ["remote", "spawn", "map", "async", "generator"])
def test_what_a_function_does_is_told_as_one_error(stack: RunningStack, way: str) -> None:
    found = said(stack, "results", "--way", way)
    assert found.keys() == RESULTS.keys()
    for name, expected in RESULTS.items():
        assert found[name].startswith(expected), name
    assert found["result above the limit"].endswith("send where it is")


def test_arguments_that_cannot_travel_are_told_before_anything_is_sent(stack: RunningStack) -> None:
    found = said(stack, "arguments", TIDEMILL_MAX_PAYLOAD="400000")
    for name, expected in ARGUMENTS.items():
        for way in ("", ", mapped", ", spawned"):
            assert found[name + way].startswith(expected), name + way
    assert found["fine"] == found["fine, spawned"] == "returned 'bytes'"
    assert found["fine, mapped"] == "returned ['int', 'bytes', 'int']"
    assert found["too many"].startswith("TypeError: takes() takes 1 positional argument but 2 were given")
    assert found["afterwards"] == "returned 'int'"
