"""What tests of sandboxes share: who their containers are, and the functions that those run."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from worker_stage import Stage

NEEDS = [
    pytest.mark.skipif(
        "CI" not in os.environ and (os.getuid() != 0 or not all(map(shutil.which, ("bwrap", "nft")))),
        reason="sandboxes of both kinds of worker are tried by root, with bubblewrap and nftables",
    ),
    pytest.mark.timeout(300),  # they start hundreds of containers
]

FIRST_ID = 1_500_000_000 + 65536 * (os.getpid() % 1000)  # nobody else's, so that processes can be told
USER = 64_123
SLOTS = Path("/run/tidemill")

CODE = """
import os, time
from tidemill._container import trials

def attack(told, ports):
    found = trials.run(told)
    for port in ports:
        found[f"port {port}"] = trials._loopback({"port": port})
    return found

def settle(name):
    global stays
    answer, stays = trials.settle(name)
    return answer

def bomb():
    children = []
    try:
        while True:
            pid = os.fork()
            if not pid:
                time.sleep(60)
                os._exit(0)
            children.append(pid)
    except OSError:
        return len(children)

def fill():
    try:
        with open("/tmp/large", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError as error:
        return type(error).__name__, error.errno

def fill_with_many():
    number = 0
    try:
        while True:
            with open(f"/root/{number}", "wb") as file:
                file.write(bytes(1 << 20))
            number += 1
    except OSError:
        return number

def eat():
    return len(bytearray(256 << 20))

def keeps():
    kept = [bytearray(os.urandom(1 << 20)) for _ in range(128)]
    time.sleep(600)
    return len(kept)

def child_eats():
    import subprocess, sys
    return subprocess.run([sys.executable, "-c", "bytearray(256 << 20)"]).returncode

def ask(address, port):
    import socket
    try:
        with socket.create_connection((address, port), 30) as sock:
            return sock.recv(100).decode()
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"

def look():
    import pathlib, sys
    return {
        "uid": os.getuid(), "hostname": os.uname().nodename, "cwd": os.getcwd(),
        "sys": os.path.exists("/sys/kernel"),
        "names": os.listdir("/etc"), "pids": [n for n in os.listdir("/proc") if n.isdigit()],
        "writable": bool(pathlib.Path("/var/mine").write_text("x")), "python": sys.executable,
    }
"""


async def call(stage: Stage, function: str, *arguments: Any, **spec: Any) -> Any:
    """Run one function in a container of its own; return the output as it arrived."""
    pool = await stage.pool(CODE, function, **spec)
    await stage.place(pool)
    call = await stage.call(pool, arguments)
    return (await stage.results(call, timeout=60.0))[0]


def groups_of(worker: int) -> set[str]:
    """Return the names of the control groups of the containers of a worker, which has this pid."""
    links = []
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            links.append(os.readlink(descriptor))
    (slot,) = {found[1] for link in links if (found := re.fullmatch(rf"{SLOTS}/(\d+)\.lock", link))}
    found = [Path(group) for group in control_groups()]
    return {group.name for group in found if group.parent.name == f"tidemill-root-{slot}"}


def control_groups() -> list[str]:
    """Return all of this machine. Others' come and go meanwhile."""
    return [f"{place}/{group}" for place, groups, _ in os.walk("/sys/fs/cgroup") for group in groups]
