"""The API of a whole stack, asked as any HTTP client asks."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack

APP = "rest-program"


@pytest.fixture
def token(stack: RunningStack) -> tuple[str, str]:
    """The stack's token: id and secret."""
    info = stack.info
    return info.token_id, info.token_secret


@pytest.fixture
async def api(stack: RunningStack, token: tuple[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the stack's token."""
    headers = {"Authorization": f"Bearer {token[0]}:{token[1]}"}
    url = f"{stack.info.gateway_url}/api/v1"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60.0) as client:
        yield client


@pytest.fixture(scope="session")
def app_id(stack: RunningStack) -> Iterator[str]:
    """A deployed app with the functions of `rest_program.py`."""
    done = stack.cli("deploy", str(Path(__file__).with_name("rest_program.py")))
    assert done.returncode == 0, done.stderr
    (app,) = [app for app in json.loads(stack.cli("app", "list", "--json").stdout) if app["name"] == APP]
    yield app["app_id"]
    assert stack.cli("app", "stop", APP, "-y").returncode == 0
