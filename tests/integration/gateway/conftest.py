"""The API of a whole stack, asked as any HTTP client asks."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack

sys.path.insert(0, str(Path(__file__).parent))

from tidemill import Client


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
    """An app that runs, with the functions of `rest_program.py`."""
    from rest_program import app

    info = stack.info
    with (
        Client.from_credentials(info.token_id, info.token_secret, server_url=info.server_url) as client,
        app.run(client=client) as running,
    ):
        assert running.app_id is not None
        yield running.app_id
