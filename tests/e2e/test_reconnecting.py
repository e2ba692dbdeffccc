"""What a restart of NATS does to those who are connected: NATS asks the registry who they are, again."""

import os
import signal
import threading
from pathlib import Path

import pytest
from running_stacks import RunningStack, wait_until

PROGRAM = str(Path(__file__).parent / "programs" / "waiting.py")


@pytest.mark.long
def test_a_call_outlives_a_restart_of_nats_while_the_registry_is_away(mortal_stack: RunningStack) -> None:
    program = mortal_stack.start_cli("run", PROGRAM)
    assert program.stdout is not None
    assert program.stdout.readline() == "begun\n"
    registry = mortal_stack.part("registry").pid
    assert registry is not None
    os.kill(registry, signal.SIGSTOP)
    back = threading.Timer(3.0, os.kill, (registry, signal.SIGCONT))
    try:
        back.start()
        mortal_stack.wait_restarted("nats", mortal_stack.kill("nats"))
        output, errors = program.communicate(timeout=60)
    finally:
        back.join()
        program.kill()
    assert program.returncode == 0, errors + mortal_stack.logs()
    assert output.splitlines() == ["slow 6.0", "kept [0.2, 0.2]", "after True"]
    wait_until(lambda: mortal_stack.cli("status").returncode == 0, what="for all parts to serve")
