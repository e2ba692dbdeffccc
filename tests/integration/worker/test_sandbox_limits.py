"""What becomes of containers that go beyond their limits, and of the control groups that hold them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sandbox_stage
from sandbox_stage import USER, call
from worker_stage import Stage

from tidemill._wire.specs import Resources

pytestmark = sandbox_stage.NEEDS


async def test_what_goes_beyond_memory_or_disk_is_told(alone: Stage, sandboxing: Callable[..., Any]) -> None:
    await sandboxing().serving()
    child, disk = await asyncio.gather(
        call(alone, "child_eats", resources=Resources(memory_limit=64)),
        call(alone, "fill_with_many", resources=Resources(ephemeral_disk=16)),
    )
    assert child.value == -signal.SIGKILL
    assert disk.value >= 16, "what it asked for is there"
    await alone.until(
        lambda: "a process was killed at the container's memory limit of 64 MiB" in alone.text()
    )
    await alone.until(lambda: "its ephemeral disk of 16 MiB is full" in alone.text())


def version_2() -> Path | None:
    """Return where control groups of version 2 are, if those have a controller that can be handed down."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, *_rest = line.split()
        if kind == "cgroup2" and (Path(path) / "cgroup.controllers").read_text().split():
            return Path(path)
    return None


@pytest.mark.skipif(version_2() is None, reason="there are no control groups of version 2")
def test_a_worker_uses_a_control_group_that_was_delegated_to_its_user_and_leaves_it_as_it_was() -> None:
    mount, name = version_2(), f"tidemill-test-{os.getpid()}"
    assert mount is not None
    (controller,) = (mount / "cgroup.controllers").read_text().split()[:1]
    handed_down = controller in (mount / "cgroup.subtree_control").read_text().split()
    (mount / "cgroup.subtree_control").write_text(f"+{controller}")
    try:
        program = [sys.executable, Path(__file__).with_name("delegated_group.py"), mount, name, str(USER)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    finally:
        with suppress(OSError):
            (mount / name).rmdir()
        if not handed_down:
            with suppress(OSError):  # somebody else uses it by now
                (mount / "cgroup.subtree_control").write_text(f"-{controller}")
    before, during, where, ended, after = json.loads(done.stdout)
    assert during == {".": 0, "mine-worker": 1, "mine": 0, "mine/co-1": 1}
    assert where == "co-1"
    assert ended == -signal.SIGKILL
    assert before == after == {".": 1}
