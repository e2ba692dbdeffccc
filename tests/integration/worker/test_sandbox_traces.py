"""Sandboxes leave nothing behind on the machine, and change it only while they are there."""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import sandbox_stage
from sandbox_stage import CODE, FIRST_ID, SLOTS, control_groups, groups_of
from worker_stage import Stage

from tidemill._wire import ids
from tidemill_worker import spares

pytestmark = sandbox_stage.NEEDS


def test_a_machine_forwards_for_containers_only_and_only_while_they_are_there() -> None:
    program = Path(__file__).with_name("machine_with_one_uplink.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    before, answer, during, after, left = json.loads(done.stdout)
    assert answer == "198.18.7.1", "the machine's own address, in front of the container's"
    assert (before, during, after) == (["0", "0"], ["0", "1"], ["0", "0"])
    assert left == []


def left_behind() -> set[str]:
    """Return everything of workers and containers that outlives processes and belongs to no live worker."""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    names = {
        *(path for path in control_groups() if Path(path).name.startswith("tidemill-root-")),
        *(name for _, name in socket.if_nameindex() if re.match(r"tm\d+[-p]", name)),
        *(line for line in tables.splitlines() if "tidemill_" in line),
        *(str(SLOTS / name) for name in names_in(SLOTS)),
        *(line for line in Path("/proc/self/mounts").read_text().splitlines() if "tidemill" in line),
        *sandboxed(),
    }
    return {name for name in names if not belongs_to_somebody(name)}


def belongs_to_somebody(name: str) -> bool:
    """Return whether a live worker, of this test or of another, holds the slot that a name tells."""
    if name == str(SLOTS / "forwarding"):  # all workers' together
        return any(belongs_to_somebody(str(SLOTS / name)) for name in names_in(SLOTS) if name != "forwarding")
    slot = re.search(r"(?:root-|\btm|tidemill_|tidemill/)(\d+)", name)
    if slot is None:
        return False
    try:
        with (SLOTS / f"{slot[1]}.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder, which may go at any moment."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def sandboxed() -> Iterator[str]:
    """Yield the processes that run under the ids of this test's sandboxes."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        uid = int(text.partition("\nUid:\t")[2].split("\t")[0])
        if FIRST_ID <= uid < FIRST_ID + 65536:
            yield status.parent.name


def disks(folder: Path) -> list[str]:
    """Return the files in a folder that loop devices have, whether those files have names or not."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            found.append(path.read_text())
    return [name for name in found if name.startswith(str(folder))]


def mounted(folder: Path) -> list[str]:
    """Return the mounts of this machine that have to do with a folder."""
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]


def held_by(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_containers_leave_nothing_behind_although_their_worker_is_killed(
    alone: Stage, sandboxing: Callable[..., Any], data: Path
) -> None:
    before, folders = left_behind(), set((data / "containers").glob("*"))  # others work there, too
    count = int(os.environ.get("TIDEMILL_TEST_STARTS", "200"))
    worker = sandboxing(TIDEMILL_WORKER_CPU="1000", TIDEMILL_WORKER_MEMORY="100000")
    await worker.serving()
    pool = await alone.pool(CODE, "look")
    had = 0
    for _ in range(count // 20):
        containers = await alone.place(pool, 20)
        assert not mounted(data), "what containers have mounted is in their own sight only"
        await alone.stop(*containers, graceful=False)
        for container in containers:
            await alone.event(container, "stopped")
        had = had or held_by(worker.process.pid)
    await alone.until(lambda: held_by(worker.process.pid) <= had + 20, 60.0)  # files and sockets
    # What is left are spares, which were not needed yet.
    await alone.until(lambda: len(list((data / "containers").glob("*/sandbox-*/*-*"))) <= spares.EACH, 60.0)
    await alone.until(lambda: len(groups_of(worker.process.pid)) <= spares.EACH, 60.0)
    for _ in range(20):
        await alone.ask_to_place(pool, ids.new(ids.CONTAINER))
    await worker.kill()
    await alone.until(lambda: not list(sandboxed()) and not disks(data), 60.0)

    alone.states.clear()
    successor = sandboxing()
    await successor.serving()
    await alone.until(lambda: alone.states)
    successor.send(signal.SIGTERM)
    assert await successor.ended() == 0
    await alone.until(lambda: left_behind() <= before, 60.0)
    await alone.until(lambda: disks(data) == [], 60.0)
    assert set((data / "containers").glob("*")) <= folders
