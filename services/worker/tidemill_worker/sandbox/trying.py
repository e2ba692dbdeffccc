"""The self-test: two real containers, of which one tries to get out, before any user code runs."""

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tidemill._wire import isolation, specs
from tidemill_worker.capacity import Reservation
from tidemill_worker.images import Image
from tidemill_worker.sandbox import addresses
from tidemill_worker.sandbox.tier import Bubblewrap
from tidemill_worker.tier import ForkError, Launch, Sockets

PATIENCE = 45.0  # seconds for all of it, on a machine that is busy with other things
WORKSPACE = "self-test"
# What a sandbox that does not hold it back must not be used for. The rest is told.
DECISIVE = (
    "files", "write", "mounts", "sysctl", "devices", "processes", "neighbours", "namespaces", "loopback",
    "addresses", "abstract",
)  # fmt: skip


async def try_out(tier: Bubblewrap, image: Image) -> dict[str, str]:
    """Return the rows of `isolation.ROWS` that the tier does not hold, and how.

    Raises:
        ForkError: no container could be made at all; the message says why.
    """
    with tempfile.TemporaryFile() as words, _traps(tier) as told:
        try:
            async with asyncio.timeout(PATIENCE):
                held = await _in_two_containers(tier, image, told, words)
        except (ForkError, OSError, ValueError, TimeoutError) as error:
            words.seek(0)
            said = words.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise ForkError(said or str(error) or type(error).__name__) from error
    return {name: isolation.OPEN for name, holds in held.items() if not holds}


async def _in_two_containers(
    tier: Bubblewrap, image: Image, told: dict[str, Any], words: Any
) -> dict[str, bool]:
    ours: list[socket.socket] = []
    theirs: list[socket.socket] = []
    for _ in range(4):
        inner, outer = socket.socketpair()
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.append(inner)
        theirs.append(outer)
    blocked = bool(tier.egress.lacking)
    descriptors = tuple(each.fileno() for each in theirs)
    launch = Launch(image, WORKSPACE, descriptors, kind="--trials", blocked=blocked, words=words)
    try:
        launched = await tier.launch(launch)
    finally:
        for each in theirs:
            each.close()
    try:
        for number in range(2):
            sockets = Sockets(ours[2 * number], ours[2 * number + 1], 0)
            await tier.admit(f"trial-{number}", _reservation(blocked), launched, sockets)
        neighbour = await _ask(ours[0], {"settle": f"neighbour-{os.getpid()}"})
        held = await _ask(ours[2], {**told, "neighbour": neighbour})
    finally:
        for each in ours:
            each.close()
        with suppress(ProcessLookupError):
            launched.process.kill()
        await launched.process.wait()
        for number in range(2):
            await tier.clean(f"trial-{number}")
        await tier.forget(launched)
    return held


def _reservation(blocked: bool) -> Reservation:
    spec = specs.FunctionSpec("trial", specs.Source(), block_network=blocked)
    pool = specs.Pool("", "", "", "", WORKSPACE, "", "cpu", 0, "", "", spec)
    return Reservation(pool)


async def _ask(sock: socket.socket, value: dict[str, Any]) -> dict[str, Any]:
    """Send one line of JSON, return the one that is answered."""

    def ask() -> dict[str, Any]:
        sock.settimeout(PATIENCE)
        with sock.makefile("rw") as file:
            file.write(json.dumps(value) + "\n")
            file.flush()
            return dict(json.loads(file.readline()))

    return await asyncio.to_thread(ask)


@contextmanager
def _traps(tier: Bubblewrap) -> Iterator[dict[str, Any]]:
    """Lay out what a container must not reach; yield where it all is."""
    own = [address for address in addresses.own() if _can_bind(address)]
    abstract = f"tidemill-{os.getpid()}"
    with (
        tempfile.NamedTemporaryFile(prefix="tidemill-") as secret,
        socket.socket() as loopback,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        loopback.bind(("0.0.0.0", 0))  # noqa: S104 - so that our own addresses are tried too
        loopback.listen()
        unix.bind(f"\0{abstract}")
        unix.listen()
        yield {
            "secret": secret.name,
            "pid": os.getpid(),
            "command": Path(sys.executable).name,
            "uid": os.getuid(),
            "range": tier.has_own_ids,
            "port": loopback.getsockname()[1],
            "addresses": own,
            "abstract": abstract,
        }


def _can_bind(address: str) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
        return True


def image_of(python: Path, version: str) -> Image:
    """Return an image that is the worker's own environment: trying needs nothing else."""
    return Image("self-test", python, version, python.parent.parent)
