"""What uv keeps is compiled once, and stays what uv unpacked."""

import os
import sys
from pathlib import Path

from tidemill_worker.bytecode import ARCHIVES, Bytecode
from tidemill_worker.children import Children
from tidemill_worker.interpreters import Interpreter
from tidemill_worker.uv import Uv


async def test_packages_are_compiled_and_what_wheels_keep_for_other_places_is_not(tmp_path: Path) -> None:
    wheel = tmp_path / ARCHIVES / "one"
    for file in ("package/module.py", "package-1.data/scripts/program.py"):
        (wheel / file).parent.mkdir(parents=True, exist_ok=True)
        (wheel / file).write_text("x = 1\n")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    bytecode = Bytecode(Uv(Children(), tmp_path))
    assert await bytecode.complete(Interpreter(version, sys.executable))
    assert [cached.parents[1].name for cached in wheel.rglob("*.pyc")] == ["package"]
    assert not await bytecode.complete(Interpreter(version, sys.executable))


def test_what_a_killed_program_left_in_the_cache_goes_when_nobody_can_need_it(tmp_path: Path) -> None:
    for name in (".tmpOld", ".tmpNew", "archive-v0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    os.utime(tmp_path / ".tmpOld", (0, 0))
    (tmp_path / ".tmpGone").symlink_to("nowhere")  # as what somebody else removes just now
    Uv(Children(), tmp_path).sweep()
    assert {path.name for path in tmp_path.iterdir()} == {".tmpNew", ".tmpGone", "archive-v0"}
