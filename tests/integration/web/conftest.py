"""A deployed app behind URLs, asked as any client of the web asks."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack
from waiting import wait_until

APP = "web-program"
PROGRAM = Path(__file__).with_name("web_program.py")


class Site:
    """The gateway of a stack, and the functions behind it."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack = stack
        self.gateway = stack.info.gateway_url

    def path(self, function: str) -> str:
        """Return the path of a function."""
        return f"/f/local--{APP}-{function}"

    def url(self, function: str, rest: str = "/") -> str:
        """Return an address of a function, by path."""
        return f"{self.gateway}{self.path(function)}{rest}"

    def socket(self, function: str, rest: str) -> str:
        """Return the address of a WebSocket."""
        return self.url(function, rest).replace("http://", "ws://", 1)


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
