"""The `uv` program: where it is, how it is run, what its complaints mean."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidemill import exception
from tidemill_worker.children import Children

TIMEOUT = 3600.0  # seconds that one run may take
_LAST_LINES = 30
_LINE = 64 * 1024  # bytes of a line that are kept

# Whoever told pip where packages are need not tell uv again.
_PIP_SETTINGS = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
}

Say = Callable[[str], None]  # takes a line of a build


def silent(_line: str) -> None:
    """Take a line that nobody is to hear."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended: its status, its output, the last lines of its complaints."""

    status: int
    output: str
    complaints: str


class Uv:
    """Runs uv as a child of this worker, with a cache of its own if `cache` names one."""

    def __init__(self, children: Children, cache: Path | None = None) -> None:
        self.children = children
        self.cache = cache

    def sweep(self) -> None:
        """Remove what programs that were killed left in the cache: older than any run can be."""
        for left in self.cache.glob(".tmp*") if self.cache is not None else ():
            with suppress(FileNotFoundError):  # a program of another worker's removed it just now
                if left.stat().st_mtime < time.time() - TIMEOUT:
                    shutil.rmtree(left, ignore_errors=True)

    async def run(
        self,
        *arguments: str | Path,
        search: str | None = None,
        env: Mapping[str, str] | None = None,
        say: Say = silent,
        held: Sequence[int] = (),
    ) -> Ran:
        """Run uv to its end.

        `search` replaces the path on which it looks for interpreters; `env` are further variables; `say`
        hears its complaints line by line, as they come; `held` are descriptors that it keeps open.
        """
        environment = {**_environment(os.environ, search), **(env or {})}
        if self.cache is not None:
            environment["UV_CACHE_DIR"] = str(self.cache)
        return await run(self.children, (program(), *map(str, arguments)), environment, say, held=held)


async def run(
    children: Children,
    command: tuple[str, ...],
    environment: Mapping[str, str],
    say: Say = silent,
    *,
    feed: bytes | None = None,
    held: Sequence[int] = (),
    timeout: float = TIMEOUT,
) -> Ran:
    """Run a program to its end, and end it with all that it started if nobody waits for it any more."""
    async with children.starting():
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL if feed is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            pass_fds=held,
            start_new_session=True,
            limit=_LINE,
        )
        children.own.add(process.pid)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
            output = group.create_task(process.stdout.read())
            complaints = group.create_task(_listen(process.stderr, say))
            if feed is not None:
                group.create_task(_feed(process, feed))
            await process.wait()
    except TimeoutError:
        raise exception.ImageBuildError(f"{Path(command[0]).name} took more than {timeout:g} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        children.own.discard(process.pid)
    assert process.returncode is not None
    return Ran(process.returncode, output.result().decode(errors="replace"), complaints.result())


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _listen(stream: asyncio.StreamReader, say: Say) -> str:
    """Pass lines on as they come; return the last ones."""
    kept: deque[str] = deque(maxlen=_LAST_LINES)
    while True:
        try:
            line = await stream.readuntil()
        except asyncio.IncompleteReadError as end:
            line = end.partial
        except asyncio.LimitOverrunError as error:  # a line without end: in pieces
            line = await stream.readexactly(error.consumed)
        if not line:
            return "\n".join(kept)
        text = line.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
        kept.append(text)
        say(text)


def program() -> str:
    """Return the path of uv: the one installed beside this worker, else one on the path."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise exception.ImageBuildError(
            "uv is not installed on this worker", hint="run: pip install 'tidemill[server]'"
        )
    return found


def _environment(outer: Mapping[str, str], search: str | None) -> dict[str, str]:
    env = {name: value for name, value in outer.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    for theirs, ours in _PIP_SETTINGS.items():
        if theirs in outer and ours not in outer:
            env[ours] = outer[theirs]
    env["UV_LINK_MODE"] = outer.get("UV_LINK_MODE", "hardlink")
    env["UV_NO_PROGRESS"] = "1"
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if search is not None:
        env["PATH"] = search
    return env
