"""A type checker sees the real signatures of `.remote`, `.map`, `.spawn` and their `.aio`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tidemill

SAMPLE = Path(__file__).parent / "typed_sample.py"
DECLARATIONS = Path(__file__).parent / "typed_declarations.py"

pytestmark = pytest.mark.timeout(330)  # mypy reads everything, with nothing kept from the last time


def test_mypy_sees_the_signatures_that_the_decorated_functions_have(tmp_path: Path) -> None:
    """The programs assert each type, and each wrong call in them must be one: unused ignores are errors."""
    command = [
        sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "--config-file", "",
        "--cache-dir", str(tmp_path), str(SAMPLE), str(DECLARATIONS),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_sees_the_signatures_that_the_decorated_functions_have(tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path)
    configuration = {
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "extraPaths": [str(Path(tidemill.__file__).parents[1])],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(configuration))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--project", str(tmp_path)]
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # it asks for no newer version
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 errors, 0 warnings" in done.stdout
