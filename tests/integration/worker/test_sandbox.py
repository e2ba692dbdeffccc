"""Sandboxes: user code tries to get out, goes beyond its limits, and leaves nothing behind."""

import asyncio
import errno
import fcntl
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from worker_stage import Stage

from tidemill._wire import ids, isolation
from tidemill._wire.specs import Resources
from tidemill_worker import spares
from tidemill_worker.sandbox import addresses
from tidemill_worker.sandbox.disks import Disks, NoDisks

pytestmark = pytest.mark.skipif(
    "CI" not in os.environ and (os.getuid() != 0 or not all(map(shutil.which, ("bwrap", "nft")))),
    reason="sandboxes of both kinds of worker are tried by root, with bubblewrap and nftables",
)

DOCS = Path(__file__).parents[3] / "docs" / "isolation.md"
FIRST_ID = 1_500_000_000 + 65536 * (os.getpid() % 1000)  # nobody else's, so that processes can be told
USER = 64_123

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
        with socket.create_connection((address, port), 5) as sock:
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


@pytest.fixture
def sandboxing(launch_worker: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Start a worker of root's that makes sandboxes. At the end it goes in order: nothing is left."""
    started = []

    def start(**settings: str) -> Any:
        usual = {"TIDEMILL_RUNTIME": "bubblewrap", "TIDEMILL_WORKER_IDS": str(FIRST_ID)}
        started.append(launch_worker(**{**usual, "TIDEMILL_DRAIN_TIMEOUT": "1", **settings}))
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.send(signal.SIGTERM)
            worker.process.wait(30)


@pytest.fixture(scope="module")
def home_of_user() -> Iterator[Path]:
    """A folder of an ordinary user, that user can reach."""
    with tempfile.TemporaryDirectory(prefix="tm-user-") as folder:
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


async def call(stage: Stage, function: str, *arguments: Any, **spec: Any) -> Any:
    """Run one function in a container of its own; return the output as it arrived."""
    pool = await stage.pool(CODE, function, **spec)
    await stage.place(pool)
    call = await stage.call(pool, arguments)
    return (await stage.results(call, timeout=30.0))[0]


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
    state = await alone.until(lambda: next(iter(alone.states.values()), None), 20.0)
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
            if seen.container not in groups_of(worker):
                return seen


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
        state = await alone.until(lambda: next(iter(alone.states.values()), None), 20.0)
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


def test_a_machine_forwards_for_containers_only_and_only_while_they_are_there() -> None:
    program = Path(__file__).with_name("machine_with_one_uplink.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    before, answer, during, after, left = json.loads(done.stdout)
    assert answer == "198.18.7.1", "the machine's own address, in front of the container's"
    assert (before, during, after) == (["0", "0"], ["0", "1"], ["0", "0"])
    assert left == []


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


SLOTS = Path("/run/tidemill")


def left_behind() -> set[str]:
    """Return everything of workers and containers that outlives processes and belongs to no live worker."""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    names = {
        *(str(path) for path in Path("/sys/fs/cgroup").rglob("tidemill-root-*")),
        *(name for _, name in socket.if_nameindex() if re.match(r"tm\d+[-p]", name)),
        *(line for line in tables.splitlines() if "tidemill_" in line),
        *map(str, SLOTS.glob("*")),
        *(line for line in Path("/proc/self/mounts").read_text().splitlines() if "tidemill" in line),
        *sandboxed(),
    }
    return {name for name in names if not belongs_to_somebody(name)}


def belongs_to_somebody(name: str) -> bool:
    """Return whether a live worker, of this test or of another, holds the slot that a name tells."""
    if name == str(SLOTS / "forwarding"):  # all workers' together
        return any(belongs_to_somebody(str(lock)) for lock in SLOTS.glob("*.lock"))
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


def groups_of(pid: int) -> set[str]:
    """Return the names of the control groups of a worker's containers."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            links.append(os.readlink(descriptor))
    (slot,) = {found[1] for link in links if (found := re.fullmatch(rf"{SLOTS}/(\d+)\.lock", link))}
    folders = Path("/sys/fs/cgroup").rglob(f"tidemill-root-{slot}")
    return {group.name for folder in folders for group in folder.iterdir() if group.is_dir()}


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
