"""What is imported when: containers start with the SDK and without most of it."""

import subprocess
import sys

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
