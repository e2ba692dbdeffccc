"""A deployed app behind URLs, asked as any client of the web asks."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack
from waiting import wait_until
from web_site import APP, Site

from tidemill import Client

PROGRAM = Path(__file__).with_name("web_program.py")


@pytest.fixture(scope="session")
def site(stack: RunningStack) -> Iterator[Site]:
    """The functions of `web_program.py`, deployed."""
    done = stack.cli("deploy", str(PROGRAM))
    assert done.returncode == 0, done.stderr
    found = Site(stack)
    wait_until(lambda: httpx.get(found.url("web"), timeout=60).status_code != 404, what="for the routes")
    yield found
    assert stack.cli("app", "stop", APP, "-y").returncode == 0


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client that finds its own way to hosts below `.localhost`."""
    async with httpx.AsyncClient(timeout=60.0) as client:
        yield client


@pytest.fixture
def own_client(stack: RunningStack) -> Iterator[Client]:
    """A client of Tidemill itself; in this folder `client` is one of the web."""
    with stack.client() as client:
        yield client
