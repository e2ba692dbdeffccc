"""What holds of calls, terminals, classes and the web holds in sandboxes too.

Some tests of plain processes are run again here, on a stack whose worker makes sandboxes. Others can be, with
`TIDEMILL_TEST_RUNTIME=bubblewrap`.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from running_stacks import RunningStack, down, up, wait_until
from test_calls import (
    test_bad_input_gives_one_error_each_and_leaves_everything_usable,
    test_generators_can_be_mapped_and_spawned,
)
from test_interactive import (
    test_a_debugger_and_questions_use_the_callers_terminal,
    test_a_program_ends_with_its_container,
    test_a_program_in_a_container_has_our_streams_and_its_status_is_ours,
)

from tidemill_worker.sandbox import addresses

__all__ = [
    "test_a_debugger_and_questions_use_the_callers_terminal",
    "test_a_program_ends_with_its_container",
    "test_a_program_in_a_container_has_our_streams_and_its_status_is_ours",
    "test_bad_input_gives_one_error_each_and_leaves_everything_usable",
    "test_generators_can_be_mapped_and_spawned",
]

pytestmark = [
    pytest.mark.skipif(
        "CI" not in os.environ and (os.getuid() != 0 or not all(map(shutil.which, ("bwrap", "nft")))),
        reason="sandboxes with a network need root, bubblewrap and nftables here",
    ),
    pytest.mark.long,
]

PROGRAM = Path(__file__).parent / "programs" / "sandboxed.py"


@pytest.fixture(scope="module")
def sandboxing() -> Iterator[RunningStack]:
    """A stack whose worker makes sandboxes."""
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        stack = RunningStack(Path(folder).resolve())
        stack.environment["TIDEMILL_RUNTIME"] = "bubblewrap"
        yield up(stack)
        down(stack)


@pytest.fixture(scope="module")
def stack(sandboxing: RunningStack) -> RunningStack:
    """What the tests that are run again take for the stack."""
    return sandboxing


def test_classes_the_web_and_timeouts_are_the_same_in_sandboxes_and_the_stack_is_out_of_reach(
    stack: RunningStack,
) -> None:
    assert "bubblewrap" in stack.cli("status").stdout
    sockets, ports = places_of(stack)
    assert any("PGSQL" in path for path in sockets)
    places = [[*sockets, str(stack.home / "stack.json")], ports, list(addresses.own())]
    done = stack.cli("run", "-q", str(PROGRAM), "--places", json.dumps(places))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    container = next(line for line in lines if line.startswith("begun ")).split()[1]
    assert [line for line in lines if not line.startswith("begun ")] == [
        "reached []",
        "(3, 1) [0, 1, 2]",
        "[8, 5]",
        '"Hello, mill of 0!"',
        "FunctionTimeoutError: the input ran for longer than its timeout of 4 s",
        "2",
    ]
    wait_until(lambda: not of_container(container), what="for all processes of the container to be gone")


def places_of(stack: RunningStack) -> tuple[list[str], list[int]]:
    """Return where the stack listens: the broker, the database, every service, and what they have started."""
    listening = set()
    for part in stack.info.parts:
        service = psutil.Process(part.pid)
        listening |= listening_of(service)
        for child in service.children(recursive=True):
            # Containers and helpers of PostgreSQL come and go, some are in sandboxes, and what one listens at
            # ends with it. The services stay: each of them has to answer.
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                listening |= listening_of(child)
    sockets = [place for place in listening if isinstance(place, str) and place.startswith("/")]
    return sorted(sockets), sorted({place.port for place in listening if hasattr(place, "port")})


def listening_of(process: psutil.Process) -> set[Any]:
    """Return the addresses that a process listens at."""
    return {
        connection.laddr
        for connection in process.net_connections(kind="all")
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    }


def of_container(container: str) -> list[psutil.Process]:
    """Return the processes that say that they are of a container."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TIDEMILL_TASK_ID") == container:
                found.append(process)
        except psutil.Error:
            continue
    return found
