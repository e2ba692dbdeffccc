"""The `uv` program: where it is, how it is run, what its complaints mean."""

import asyncio
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidemill import exception
from tidemill_worker.children import Children

TIMEOUT = 3600.0  # seconds that one run may take
_LAST_LINES = 30

# Whoever told pip where packages are need not tell uv again.
_PIP_SETTINGS = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended: its status, its output, the last lines of its complaints."""

    status: int
    output: str
    complaints: str


class Uv:
    """Runs uv as a child of this worker."""

    def __init__(self, children: Children) -> None:
        self._children = children

    async def run(self, *arguments: str | Path, search: str | None = None) -> Ran:
        """Run uv to its end; `search` replaces the path on which it looks for interpreters."""
        async with self._children.starting():
            process = await asyncio.create_subprocess_exec(
                program(),
                *map(str, arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(os.environ, search),
                start_new_session=True,
            )
            self._children.own.add(process.pid)
        try:
            async with asyncio.timeout(TIMEOUT):
                output, complaints = await process.communicate()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            self._children.own.discard(process.pid)
        assert process.returncode is not None
        lines = deque(complaints.decode(errors="replace").splitlines(), _LAST_LINES)
        return Ran(process.returncode, output.decode(errors="replace"), "\n".join(lines))


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
