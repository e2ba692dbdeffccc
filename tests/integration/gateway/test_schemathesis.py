"""The API against its own document: requests that fit it, and others, as schemathesis makes them up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running_stacks import RunningStack

SECONDS = 25
PROGRAM = Path(__file__).with_name("any_program.py")

# 412 is what a made-up If-Match deserves; 424 what a function answers that does not like its arguments.
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 424, 429]

[parameters]
"path.app" = "any-program"
"path.function" = "anything"
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_api_keeps_to_its_document(own_stack: RunningStack, tmp_path: Path) -> None:
    done = own_stack.cli("deploy", str(PROGRAM))
    assert done.returncode == 0, done.stderr
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    info = own_stack.info
    arguments = [
        *("run", f"{info.gateway_url}/api/v1/openapi.json", "--checks", "all"),
        *("--header", f"Authorization: Bearer {info.token_id}:{info.token_secret}"),
        *("--max-time", str(SECONDS), "--request-timeout", "60", "--continue-on-failure"),
        *("--exclude-path-regex", "/logs/stream$"),  # they have no end: see test_rest_logs.py
        *("--suppress-health-check", "all", "--warnings", "off"),
        # One worker: in CPython 3.11 two threads that parse source at once may break each other.
        *("--workers", "1"),
        # As Hypothesis itself does it: who lands a change is not to find what another one has broken.
        *(("--seed", "1") if "CI" in os.environ else ()),
    ]
    program = [str(Path(sys.executable).parent / "schemathesis"), *arguments]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout
