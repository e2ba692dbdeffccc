"""What is imported when: containers start with the SDK and without most of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["tidemill.functions", "tidemill.function_call"])
def test_functions_are_declared_without_asyncio_and_nats(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "heavy = {'asyncio', 'nats', 'msgspec', 'click', 'rich', 'concurrent.futures', 'uvloop'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_a_first_call_loads_only_what_it_needs(tmp_path: Path) -> None:
    """Half of the time of a first call goes into imports: each of these takes 2 to 40 ms."""
    program = """
import sys
from pathlib import Path
import tidemill
try:
    tidemill.Function.from_name("app", "f").remote(1)
except tidemill.exception.ConnectionError:
    pass  # everything was loaded by then
heavy = {"aiohttp", "nats.js.api", "nats.js.client", "importlib.metadata", "importlib.resources", "email"}
heavy |= {"click", "rich", "msgspec", "cloudpickle", "numpy", "sqlalchemy", "pydantic", "tempfile", "zipfile"}
heavy |= {"tidemill.app", "tidemill.image", "tidemill._wire.specs", "tidemill._wire.deploying"}
print(sorted(heavy & sys.modules.keys()))
"""
    nobody = {"TIDEMILL_SERVER_URL": "nats://127.0.0.1:1", "TIDEMILL_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ | nobody
    )
    assert done.stdout == "[]\n", done.stderr


def test_what_was_left_out_of_nats_is_there_for_others() -> None:
    program = """
from tidemill._bus.lean import import_nats
import_nats()
import nats
assert issubclass(nats.js.errors.NotFoundError, nats.errors.Error)
assert nats.js.JetStreamContext(nats.NATS())
import aiohttp, importlib.metadata
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
