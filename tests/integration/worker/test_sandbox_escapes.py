"""User code in sandboxes tries to get out and goes beyond its limits: what holds is what the docs say."""

import asyncio
import errno
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sandbox_stage
from sandbox_stage import USER, call, groups_of
from worker_stage import Stage

from tidemill._wire import isolation
from tidemill._wire.specs import Resources
from tidemill_worker.sandbox import addresses
from tidemill_worker.sandbox.disks import Disks, NoDisks

pytestmark = sandbox_stage.NEEDS

DOCS = Path(__file__).parents[3] / "docs" / "isolation.md"


@pytest.fixture(scope="module")
def home_of_user() -> Iterator[Path]:
    """A folder of an ordinary user, that user can reach."""
    with tempfile.TemporaryDirectory(prefix="tm-user-", ignore_cleanup_errors=True) as folder:
        os.chown(folder, USER, USER)
        yield Path(folder)


@pytest.fixture
def as_user(launch: Any, home_of_user: Path) -> Callable[..., Any]:
    """Start a worker as an ordinary user, whose subordinate ids begin at `first`."""

    def start(first: int, **settings: str) -> Any:
        program = (sys.executable, "-m", "tidemill_worker")
        usual = {"TIDEMILL_RUNTIME": "bubblewrap", "HOME": str(home_of_user)}
        usual["TIDEMILL_DATA_DIR"] = f"{home_of_user}/data"
        starter = str(Path(__file__).with_name("as_user.py"))
        return launch(starter, str(USER), str(first), *program, **{**usual, **settings})

    return start


@pytest.fixture
def traps() -> Iterator[dict[str, Any]]:
    """What an attacker would like to reach on this machine."""
    with (
        tempfile.NamedTemporaryFile() as secret,
        socket.socket() as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        tcp.bind(("0.0.0.0", 0))
        tcp.listen()
        name = f"tidemill-trap-{os.getpid()}"
        unix.bind(f"\0{name}")
        unix.listen()
        yield {
            "secret": secret.name, "pid": os.getpid(), "command": "python", "uid": 0, "range": True,
            "port": tcp.getsockname()[1], "addresses": list(addresses.own()), "abstract": name,
        }  # fmt: skip


def outside_address(first: int, number: int) -> str:
    """Return an address of a network of four between this machine and one outside, nobody else's."""
    return str(IPv4Address(first + 4 * (os.getpid() % 16_000) + number))


# For machines outside: a public network, which nobody routes, and a private one.
PUBLIC_HERE, PUBLIC = (outside_address(int(IPv4Address("198.18.0.0")), number) for number in (1, 2))
PRIVATE_HERE, PRIVATE = (outside_address(int(IPv4Address("10.213.0.0")), number) for number in (1, 2))
ANSWER = """
import socket
with socket.create_server(("0.0.0.0", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        connection, (address, _) = server.accept()
        connection.sendall(address.encode())
        connection.close()
"""


@pytest.fixture
def outside() -> Iterator[int]:
    """Another machine, with a public and a private address, that tells who asks on the port returned."""
    space = f"outside-{os.getpid()}"
    near, far = f"out{os.getpid()}a", f"out{os.getpid()}b"
    commands = f"""
        ip netns add {space}
        ip link add {near} type veth peer name {far} netns {space}
        ip address add {PUBLIC_HERE}/30 dev {near}
        ip address add {PRIVATE_HERE}/30 dev {near}
        ip link set {near} up
        ip -n {space} address add {PUBLIC}/30 dev {far}
        ip -n {space} address add {PRIVATE}/30 dev {far}
        ip -n {space} link set {far} up
    """
    try:
        for command in commands.strip().splitlines():
            subprocess.run(command.split(), check=True)
        server = ["ip", "netns", "exec", space, sys.executable, "-c", ANSWER]
        with subprocess.Popen(server, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield int(process.stdout.readline())
            process.kill()
    finally:
        subprocess.run(["ip", "netns", "delete", space], check=False)


async def attacked(stage: Stage, traps: dict[str, Any], ports: list[int]) -> set[str]:
    """Return what user code could do that it should not."""
    neighbour = (await call(stage, "settle", "beside")).value
    found = (await call(stage, "attack", {**traps, "neighbour": neighbour}, ports)).value
    return {name for name, held in found.items() if not held}


def table() -> list[dict[str, str]]:
    """Return the table of docs/isolation.md: what is tried, and what becomes of it, by kind of worker."""
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header = next(row for row in rows if "process" in row)
    known = set(isolation.ROWS.values())
    return [dict(zip(header, row, strict=True)) for row in rows if row[0] in known]


@functools.cache
def has_loop_devices() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            Disks.open(Path(folder), 0, 16).close()
        except NoDisks:
            return False
        return True


def documented(column: str) -> dict[str, str]:
    """Return what the table says is not held back. A machine may lack loop devices, to make disks of."""
    names = {what: name for name, what in isolation.ROWS.items()}
    found = {names[next(iter(row.values()))]: row[column] for row in table()}
    assert set(found) == set(isolation.ROWS), "every row is in the docs"
    if found["disk"] == isolation.HELD and not has_loop_devices():
        found["disk"] = isolation.WATCHED
    return {name: how for name, how in found.items() if how != isolation.HELD}


async def test_user_code_of_a_root_worker_gets_nowhere_and_its_limits_hold(
    alone: Stage, sandboxing: Callable[..., Any], traps: dict[str, Any], broker: Any, outside: int
) -> None:
    worker = sandboxing(TIDEMILL_WORKER_TASKS="40")
    await worker.serving()
    state = await alone.until(lambda: next(iter(alone.states.values()), None))
    assert state.runtime == "bubblewrap"
    assert not state.note or not has_loop_devices()
    assert state.unheld == documented("root")
    assert documented("process") == dict.fromkeys(isolation.ROWS, "open")
    ports = [urlsplit(broker.url).port or 0]
    escapes, bombed, limited, disk, seen, public, private, blocked = await asyncio.gather(
        attacked(alone, traps, ports),
        call(alone, "bomb", block_network=True),
        call(alone, "eat", resources=Resources(memory_limit=64)),
        call(alone, "fill", resources=Resources(ephemeral_disk=16)),
        call(alone, "look"),
        call(alone, "ask", PUBLIC, outside),
        call(alone, "ask", PRIVATE, outside),
        call(alone, "ask", PUBLIC, outside, block_network=True),
    )
    assert escapes == set()
    assert 10 < bombed.value < 40
    assert public.value == PUBLIC_HERE, "the machine's own address, in front of the container's"
    assert private.value == f"OSError {errno.EHOSTUNREACH}"
    assert blocked.value == f"OSError {errno.ENETUNREACH}"
    assert re.search(r"killed at its memory limit of 64 MiB \(peak 6\d MiB\)", str(limited.error))
    assert disk.value == ("OSError", errno.ENOSPC if has_loop_devices() else errno.EFBIG)
    assert seen.value["uid"] == 0
    assert seen.value["hostname"] == seen.container
    assert seen.value["cwd"] == "/root"
    assert seen.value["python"].startswith("/opt/tidemill/env/")
    assert not seen.value["sys"]
    assert not {"shadow", "hostname", "machine-id"} & set(seen.value["names"])
    assert len(seen.value["pids"]) == 2, "init and runner"

    # One that was made ahead, whose group has another name, is held as any other.
    seen = await look_ahead(alone, worker.process.pid)
    assert seen.value["hostname"] == seen.container
    assert len(seen.value["pids"]) == 2
    again, limited = await asyncio.gather(
        attacked(alone, traps, ports), call(alone, "eat", resources=Resources(memory_limit=64))
    )
    assert again == set()
    assert "killed at its memory limit of 64 MiB" in str(limited.error)


async def look_ahead(stage: Stage, worker: int) -> Any:
    """Start containers until one is that was there before it was asked for; return what it saw."""
    async with asyncio.timeout(60.0):
        while True:
            seen = await call(stage, "look")
            if seen.container not in groups_of(worker):  # it has that of the spare that it was
                return seen


@pytest.fixture
def only() -> Iterator[Callable[[str], str]]:
    """Make a search path on which there is one of the programs for the network, and what else is needed."""
    with tempfile.TemporaryDirectory(prefix="tm-path-") as folder:

        def make(program: str) -> str:
            for name in (program, "newuidmap", "newgidmap", "setpriv"):
                Path(folder, name).symlink_to(str(shutil.which(name)))
            return folder

        Path(folder).chmod(0o755)
        yield make


@pytest.mark.parametrize(
    ("first", "column", "program"),
    [(200_000, "user, ids of its own", "slirp4netns"), (0, "user, one id", "pasta")],
)
async def test_user_code_of_an_ordinary_users_worker_gets_nowhere(
    alone: Stage,
    as_user: Callable[..., Any],
    only: Callable[[str], str],
    traps: dict[str, Any],
    broker: Any,
    outside: int,
    first: int,
    column: str,
    program: str,
) -> None:
    worker = as_user(first, TIDEMILL_WORKER_TASKS="200", PATH=only(program))
    try:
        await worker.serving()
        state = await alone.until(lambda: next(iter(alone.states.values()), None))
        expected = documented(column)
        assert state.unheld == expected
        ports = [urlsplit(broker.url).port or 0]
        escapes, bomb, file, files, eaten, public, private = await asyncio.gather(
            attacked(alone, {**traps, "uid": USER, "range": bool(first)}, ports),
            call(alone, "bomb", block_network=True),
            call(alone, "fill", resources=Resources(ephemeral_disk=16)),
            call(alone, "fill_with_many", resources=Resources(ephemeral_disk=16)),
            call(alone, "keeps", resources=Resources(memory_limit=64)),
            call(alone, "ask", PUBLIC, outside),
            call(alone, "ask", PRIVATE, outside),
        )
        assert public.value == PUBLIC_HERE, "the machine's own address, in front of the container's"
        assert private.value == f"OSError {errno.EHOSTUNREACH}"
        assert re.search(r"killed at its memory limit of 64 MiB \(peak \d+ MiB\)", str(eaten.error))
        assert file.value == ("OSError", errno.EFBIG)
        assert "MiB, more than its ephemeral disk of 16 MiB" in str(files.error)
        assert escapes == {name for name in expected if name not in ("memory", "processors", "disk")}
        assert 10 < bomb.value < 200
    finally:
        print(worker.log.read_text())


async def test_a_worker_that_holds_nothing_back_starts_only_where_that_is_allowed(
    alone: Stage, launch_worker: Callable[..., Any]
) -> None:
    beyond = {"TIDEMILL_RUNTIME": "auto", "TIDEMILL_WORKER_IDS": str(2**32 - 100)}  # there are no such ids
    refusing = launch_worker(**beyond, TIDEMILL_ALLOW_UNISOLATED="0")
    assert await refusing.ended() == 1
    said = json.loads(refusing.log.read_text().splitlines()[-1])
    why = "containers cannot be kept from this machine: the ids of containers cannot be mapped"
    assert (said["msg"], said["error"].startswith(why)) == ("cannot start", True)
    assert "TIDEMILL_ALLOW_UNISOLATED=1" in said["hint"]
    await launch_worker(**beyond).serving()
    state = await alone.until(lambda: next(iter(alone.states.values()), None))
    assert state.runtime == "process"
    assert state.note.startswith("no sandbox: the ids of containers cannot be mapped")
