"""The Pythons of this machine."""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

from tidemill import exception
from tidemill_worker.uv import Uv

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
OLDEST = (3, 11)  # the runner needs it


class Interpreter(NamedTuple):
    """A Python of this machine, by its minor version (`3.12`)."""

    version: str
    path: str


class Interpreters:
    """Which versions of Python there are, and where. The worker's own is known without a search."""

    def __init__(self, uv: Uv) -> None:
        self._uv = uv
        self._paths = {OWN: base_executable()}

    @property
    def versions(self) -> tuple[str, ...]:
        """The minor versions that are known so far, as `3.12`."""
        return tuple(sorted(self._paths, key=_numbers))

    async def discover(self) -> None:
        """Look for other versions. What cannot be looked at is left out."""
        ran = await self._uv.run(
            "python", "list", "--only-installed", "--output-format", "json", "--no-python-downloads",
            search=_search_path(),
        )  # fmt: skip
        if ran.status:
            return
        for found in json.loads(ran.output):
            version = ".".join(found["version"].split(".")[:2])
            if found["implementation"] == "cpython" and found["variant"] == "default":
                self._paths.setdefault(version, found["path"])

    async def find(self, version: str) -> Interpreter:
        """Return the interpreter for `version` (`3.12`, `3.12.4` or empty for the worker's own)."""
        minor = ".".join(version.split(".")[:2]) or OWN
        if minor not in self._paths:
            await self.discover()
        if minor not in self._paths or _numbers(minor) < OLDEST:
            there = ", ".join(known for known in self.versions if _numbers(known) >= OLDEST)
            raise exception.ImageBuildError(
                f"Python {version} is not on this worker: found {there}",
                hint="install it there, ask for one that is there, or leave python_version out",
            )
        return Interpreter(minor, self._paths[minor])


def base_executable() -> str:
    """Return the interpreter that this process runs, outside of any virtual environment."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _search_path() -> str:
    """Return PATH with pyenv's versions in place of its shims, which fail for all but one of them."""
    folders = [folder for folder in os.get_exec_path() if Path(folder).name != "shims"]
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    return os.pathsep.join([*folders, *map(str, sorted(pyenv.glob("versions/*/bin")))])
