"""A local stack for a suite, and programs that the suite has written."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

TIDEMILL = str(Path(sys.executable).with_name("tidemill"))


@contextmanager
def stack(**settings: str) -> Iterator[Path]:
    """Start a stack with these settings in a home of its own; yield that. This process finds it."""
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as home:
        os.environ |= {"TIDEMILL_HOME": home, **settings}
        subprocess.run([TIDEMILL, "up"], check=True, capture_output=True)
        try:
            yield Path(home)
        finally:
            subprocess.run([TIDEMILL, "down"], check=True, capture_output=True)


def ready(home: Path) -> list[dict[str, Any]]:
    """Return what the worker has said of each container that became ready, the first one first."""
    lines = (line for log in (home / "logs").glob("worker*.log") for line in log.read_text().splitlines())
    return [json.loads(line) for line in lines if '"container ready"' in line]


def load(file: Path) -> ModuleType:
    """Import a program."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
