"""GPUs for tests: a library with NVML's own binary interface tells of them, as of real ones."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml_library.c")
LOST = 15  # what NVML returns for a GPU that has fallen off the bus

missing = None if "CI" in os.environ or shutil.which("gcc") else "a compiler for C is not installed"
needs_compiler = pytest.mark.skipif(missing is not None, reason=missing or "")


@dataclass
class Pretended:
    """One of them. `used` are MiB that no process accounts for."""

    uuid: str
    name: str = "NVIDIA L4"
    memory: int = 23_034
    minor: int = 0
    used: int = 3
    status: int = 0


def compiled(folder: Path) -> Path:
    """Make the library; return it."""
    library = folder / "libnvidia-ml.so.1"
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)
    return library


class PretendedGpus:
    """The GPUs of a machine that has none, by number."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        (folder / "use").mkdir(parents=True)
        self._library = library
        self._gpus: list[Pretended] = []

    @property
    def environment(self) -> dict[str, str]:
        """Return what makes a program believe in them."""
        return {"LD_LIBRARY_PATH": str(self._library.parent), "NVML_GPUS": str(self.folder)}

    def put(self, *gpus: Pretended) -> None:
        """Have these GPUs, and no others, from now on."""
        self._gpus = list(gpus)
        self.write()

    def write(self) -> None:
        """Tell what has changed."""
        lines = [
            "|".join(map(str, (one.uuid, one.memory, one.minor, one.used, one.status, one.name)))
            for one in self._gpus
        ]
        new = self.folder / "gpus.new"
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.folder / "gpus")

    def use(self, uuid: str, pid: int, memory: int) -> None:
        """Have a process compute on one, as long as it lives."""
        (self.folder / "use" / f"{uuid}.{pid}").write_text(str(memory))
