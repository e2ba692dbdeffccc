"""A web server in a container that is not written in Python: requests, streams and sockets reach it."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack
from waiting import wait_until
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PROGRAM = Path(__file__).with_name("foreign_program.py")
LONG = 90.0  # seconds

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None and "CI" not in os.environ, reason="node is not installed"
)


@pytest.fixture
async def url(stack: RunningStack) -> AsyncIterator[str]:
    """The server's address."""
    done = stack.cli("deploy", str(PROGRAM))
    assert done.returncode == 0, done.stderr
    found = f"{stack.info.gateway_url}/f/local--foreign-server"
    await asyncio.to_thread(
        wait_until, lambda: httpx.get(found, timeout=LONG).status_code != 404, what="for the route"
    )
    yield found
    assert stack.cli("app", "stop", "foreign", "-y").returncode == 0


async def test_a_server_in_node_answers_streams_and_speaks_websocket(url: str) -> None:
    async with httpx.AsyncClient(timeout=LONG) as client:
        answer = await client.get(f"{url}/a%2Fb?c=%20")
        assert answer.json()["url"] == "/a%2Fb?c=%20"
        assert answer.json()["node"].startswith("v")
        assert answer.json()["sender"] == "127.0.0.1"
        assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
        content = b"0123456789" * 100_000
        assert (await client.post(f"{url}/back", content=content)).content == content
        async with client.stream("GET", f"{url}/steps") as stream:
            pieces = stream.aiter_text()
            assert await anext(pieces) == "first "
            assert (await client.get(f"{url}/step")).text == "stepped"
            assert "".join([piece async for piece in pieces]) == "second"

    wanted = [Subprotocol("chat"), Subprotocol("other")]
    async with connect(
        f"{url}/socket".replace("http://", "ws://"),
        subprotocols=wanted,
        max_size=None,
        open_timeout=LONG,
        close_timeout=LONG,
    ) as socket:
        assert socket.subprotocol == "chat"
        for message in ("text", "", b"\x00\xff", "ä" * 20_000, b"x" * 300_000):
            await socket.send(message)
            assert await socket.recv() == message
        await socket.close(4321, "enough")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4321
