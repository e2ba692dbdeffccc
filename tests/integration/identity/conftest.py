"""One stack with two workspaces for all tests here: what one does may not matter to the others."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_stacks import down, up

sys.path.insert(0, str(Path(__file__).parent))

from two_workspaces import INTRUDER, Workspaces, credentials, new_token, registry_command


@pytest.fixture(scope="session")
def two() -> Iterator[Workspaces]:
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        stack = up(Path(folder).resolve())
        kept = credentials(stack)
        registry_command(stack, "workspace", "create", INTRUDER)
        yield Workspaces(stack, (kept["member"], kept["member_secret"]), new_token(stack, INTRUDER))
        down(stack)
