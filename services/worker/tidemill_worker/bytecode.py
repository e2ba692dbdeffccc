"""Bytecode of packages, made once where uv keeps them: environments link it along with the files."""

import asyncio
from pathlib import Path

from tidemill_worker.building import check
from tidemill_worker.interpreters import Interpreter
from tidemill_worker.uv import Uv, run

ARCHIVES = "archive-v0"  # the folder of uv's cache that holds unpacked packages
TIMEOUT = 600.0  # seconds

# Files in the cache never change, so nobody need compare them with their bytecode. What a package has under
# `*.data/` (scripts, headers) is no module, and uv takes nothing there but what the wheel had.
_COMPILE = r"""
import compileall, py_compile, re, sys
others = re.compile(r"[.]data[/\\]")
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for folder in sys.argv[1:]:
    compileall.compile_dir(folder, rx=others, quiet=2, invalidation_mode=mode)
"""


class Bytecode:
    """What of uv's cache is compiled, for each version of Python."""

    def __init__(self, uv: Uv) -> None:
        self._uv = uv
        self._one_at_a_time = asyncio.Lock()

    async def complete(self, interpreter: Interpreter) -> bool:
        """Compile what is not; return whether there was anything.

        Raises:
            ImageBuildError: the compiler was ended, or could not write.
        """
        if self._uv.cache is None:
            return False
        async with self._one_at_a_time:
            record = self._uv.cache / f"compiled-{interpreter.version}"
            new = await asyncio.to_thread(_missing, self._uv.cache / ARCHIVES, record)
            if new:
                command = (interpreter.path, "-I", "-S", "-c", _COMPILE, *map(str, new))
                # A module that cannot be compiled tells its own error when it is imported; a compiler that
                # was ended, or had no room, has not done its work.
                check(await run(self._uv.children, command, {}, timeout=TIMEOUT), "compiling packages")
                with record.open("a") as file:
                    file.writelines(f"{folder.name}\n" for folder in new)
            return bool(new)


def _missing(archives: Path, record: Path) -> list[Path]:
    known = set(record.read_text().split()) if record.exists() else set()
    there = sorted(archives.iterdir()) if archives.is_dir() else []
    return [folder for folder in there if folder.name not in known]
