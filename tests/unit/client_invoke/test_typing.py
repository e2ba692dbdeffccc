"""A type checker sees the real signatures of `.remote`, `.map`, `.spawn` and their `.aio`."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_mypy_sees_the_signatures_that_the_decorated_functions_have(tmp_path: Path) -> None:
    """The sample asserts each type, and each wrong call in it must be one: unused ignores are errors."""
    command = [
        sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "--config-file", "",
        "--cache-dir", str(tmp_path), str(HERE / "typed_sample.py"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
