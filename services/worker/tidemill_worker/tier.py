"""Tiers: how containers are kept from the machine and from each other. The worker has one for all of them.

    process      plain processes of the worker's user; anywhere; holds nothing back
    bubblewrap   namespaces, ids that own nothing, limits, seccomp; Linux (`sandbox`)

The rest of the worker does not know which it is.
"""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from tidemill import exception
from tidemill._wire import isolation
from tidemill_worker import allocator
from tidemill_worker.capacity import Reservation
from tidemill_worker.children import Children
from tidemill_worker.driver import NOTHING, Equipment
from tidemill_worker.images import Image

# What containers get of the worker's environment: nothing that tells a secret.
PASSED_ON = (
    "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TERM",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip
_OF_THE_USER = ("HOME", "USER", "LOGNAME", "HOSTNAME")


HOME = "/root"  # where containers work, unless their image says otherwise


class ForkError(Exception):
    """A container could not be made."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """The worker's ends of a new container's two sockets, and the pid of its init."""

    runner: socket.socket
    control: socket.socket
    pid: int

    def close(self) -> None:
        """Close both: there is to be no container."""
        self.runner.close()
        self.control.close()


@dataclass(frozen=True, slots=True)
class Launch:
    """The start of an image's Python with the container's bootstrap.

    descriptors: the sockets that it is told of.
    kind, id: `--single` for one container, whose id it is; `--snapshot` for a template with user code in
        it, and what it is called; nothing for another template.
    environment: variables beside those that every program of the image has.
    web: the layer for web functions, if it serves such.
    equipment: what it has of this machine's GPUs and their driver.
    words: where it complains.
    """

    image: Image
    workspace: str
    descriptors: tuple[int, ...]
    kind: str = ""
    id: str = ""
    blocked: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    web: Path | None = None
    equipment: Equipment = NOTHING
    words: IO[bytes] | None = None

    def arguments(self, web: str) -> list[str]:
        """Return what the bootstrap is told; `web` is the path by which it finds that layer."""
        options = [self.kind] if self.kind else []
        options += ["--web", web] if self.web else []
        return [*options, *map(str, self.descriptors), *([self.id] if self.id else [])]


@dataclass(frozen=True, slots=True)
class Launched:
    """A running Python of an image: a template, or a container started by itself.

    `scratch` is the folder, in a tier that has one, in which its containers' files grow.
    """

    process: asyncio.subprocess.Process
    scratch: Path | None = None
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container works and puts temporary files, by its own paths."""

    workdir: str
    temporary: str


# Where files of an image go, by the container's own path, and the folders that hold them here.
Files = Sequence[tuple[str, Path]]

# Told of a container that goes beyond a limit: its id, what there is to say, and whether it must end, for
# which that is the reason, as `was killed at its memory limit of 64 MiB`.
Report = Callable[[str, str, bool], None]


class Tier(Protocol):
    """How containers are started here, and what holds them.

    name: as reports and `tidemill status` tell it.
    isolates: whether user code is kept from the machine at all.
    unheld: what is not held back, by the names of `isolation.ROWS`, and how (`open` or `watched`).
    note: why it is this tier and no better one, or what is missing; empty where there is nothing to say.
    makes_spares: whether containers can be made before it is known what they run.
    """

    name: str
    isolates: bool
    makes_spares: bool
    unheld: Mapping[str, str]
    note: str

    async def launch(self, launch: Launch) -> Launched:
        """Start an image's Python; `OSError` if that cannot be."""

    async def admit(
        self, container: str, reservation: Reservation, launched: Launched, sockets: Sockets, /
    ) -> Sockets:
        """Put limits on a container that has been made, connect it, and let it go; `ForkError` if not."""

    async def prepare(self, spare: str, launched: Launched, sockets: Sockets, /) -> Sockets:
        """Do so with one that is made ahead: with the usual limits, under a name of its own."""

    def suits(self, container: str, reservation: Reservation, /) -> bool:
        """Whether a spare can become this container, which has been settled."""

    def adopt(self, spare: str, container: str, reservation: Reservation, sockets: Sockets, /) -> None:
        """Make a spare this container, with its limits; `OSError` if that cannot be."""

    async def settle(self, container: str, image: Image, files: Files, /) -> Place:
        """Return where a container works, which will find these files where its image says.

        Raises:
            ImageBuildError: they are to lie where a container has nothing of its own.
        """

    def inside(self, source: Path, workspace: str, /) -> str:
        """Return a folder of a workspace's code as its containers see it."""

    def verdict(self, container: str, /) -> str:
        """Return how the kernel ended a container for want of memory; empty if it did not."""

    def watch(self, report: Report) -> None:
        """From now on tell of containers that go beyond limits which nothing enforces."""

    async def clean(self, container: str) -> None:
        """Remove what a container left."""

    async def forget(self, launched: Launched, /) -> None:
        """Remove what an image's Python needed that has ended, with all its containers."""

    async def close(self) -> None:
        """Leave nothing behind."""


class ProcessTier:
    """Containers are plain process trees of this machine's user, without isolation.

    folder/           private to one container, removed with it
        tmp/          its TMPDIR
        root/...      its working directory, below here
    """

    name = "process"
    isolates = False
    makes_spares = True

    def __init__(self, children: Children, layer: Path, folder: Path, note: str = "") -> None:
        self.unheld: Mapping[str, str] = dict.fromkeys(isolation.ROWS, isolation.OPEN)
        self.note = note
        self._children = children
        self._bootstrap = layer / "tidemill" / "_container" / "bootstrap.py"
        self._folder = folder

    async def launch(self, launch: Launch) -> Launched:
        """Start it beside the worker."""
        async with self._children.starting():
            process = await asyncio.create_subprocess_exec(
                launch.image.python, "-s", "-P", self._bootstrap, *launch.arguments(str(launch.web)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=launch.words or asyncio.subprocess.DEVNULL,
                env={**_environment(launch.image), **launch.environment},
                cwd=launch.workdir,
                pass_fds=launch.descriptors,
                start_new_session=True,
            )  # fmt: skip
            self._children.own.add(process.pid)
        return Launched(process)

    async def admit(
        self, _container: str, _reservation: Reservation, _launched: Launched, sockets: Sockets
    ) -> Sockets:
        """Let it go."""
        return _let_go(sockets)

    async def prepare(self, _spare: str, _launched: Launched, sockets: Sockets) -> Sockets:
        """Let it go."""
        return _let_go(sockets)

    def suits(self, _container: str, _reservation: Reservation) -> bool:
        """Return that it can: they are all alike."""
        return True

    def adopt(self, spare: str, container: str, reservation: Reservation, sockets: Sockets) -> None:
        """Do nothing: it has neither a name nor limits."""

    async def settle(self, container: str, image: Image, files: Files) -> Place:
        """Make its folders, with the files that lie below its working directory."""
        home = PurePosixPath(image.workdir or HOME)
        for place, _ in files:
            if not PurePosixPath(place).is_relative_to(home):
                raise exception.ImageBuildError(
                    f"files of the image are to lie in {place}, which a container of the process tier has "
                    "not for itself",
                    hint=f"put them below the working directory, {home}, or use the bubblewrap tier",
                )
        workdir = self._folder / container / "root" / image.workdir.lstrip("/")
        temporary = self._folder / container / "tmp"
        for path in (workdir, temporary):
            path.mkdir(parents=True, mode=0o700)
        for place, folder in files:
            # What the container writes there is nobody else's.
            copy = workdir / PurePosixPath(place).relative_to(home)
            await asyncio.to_thread(shutil.copytree, folder, copy, dirs_exist_ok=True)
        return Place(str(workdir), str(temporary))

    def inside(self, source: Path, _workspace: str) -> str:
        """Return the folder: there is no inside."""
        return str(source)

    def verdict(self, _container: str) -> str:
        """Return nothing: the kernel does not count for single processes."""
        return ""

    def watch(self, report: Report) -> None:
        """Watch nothing."""

    async def clean(self, container: str) -> None:
        """Remove its folder."""
        await asyncio.to_thread(shutil.rmtree, self._folder / container, ignore_errors=True)

    async def forget(self, _launched: Launched) -> None:
        """Remove nothing: it had nothing."""

    async def close(self) -> None:
        """Leave the rest to who made the folder."""


def _let_go(sockets: Sockets) -> Sockets:
    if sys.platform == "linux":
        sockets.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    return sockets


def passed_on(*more: str) -> dict[str, str]:
    """Return what containers get of the worker's environment."""
    return {name: os.environ[name] for name in (*PASSED_ON, *more) if name in os.environ}


def _environment(image: Image) -> dict[str, str]:
    """Return what every program of an image finds in its environment."""
    environment = passed_on(*_OF_THE_USER) | allocator.VARIABLES
    search = [str(image.python.parent), *(os.environ.get("PATH", os.defpath).split(os.pathsep))]
    environment["PATH"] = os.pathsep.join(search)
    environment["VIRTUAL_ENV"] = str(image.python.parent.parent)
    return environment
