"""What clients get when parts of a stack are lost while their requests are under way."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack
from waiting import until

PROGRAM = Path(__file__).with_name("lossy_program.py")
PATH = "/f/local--lossy-web"


def deploy(stack: RunningStack) -> str:
    """Deploy the app; return its URL."""
    done = stack.cli("deploy", str(PROGRAM))
    assert done.returncode == 0, done.stderr
    return f"{stack.info.gateway_url}{PATH}"


async def answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url, timeout=60)).status_code == 200
    except httpx.TransportError:
        return False


@asynccontextmanager
async def begun(client: httpx.AsyncClient, url: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """Hold the rest of a response of which the first piece has come: its request is with a container."""
    async with client.stream("GET", f"{url}/stream?60") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"begun"
        yield pieces


@pytest.mark.long
async def test_every_loss_is_an_honest_end_and_the_stack_goes_on(
    mortal_stack: RunningStack, tmp_path: Path
) -> None:
    stack = mortal_stack
    async with httpx.AsyncClient(timeout=60.0) as client:
        url = await asyncio.to_thread(deploy, stack)
        assert (await client.get(url)).text == "done"

        # The worker: what it had is answered with an error, not run again.
        async with begun(client, url) as streaming:
            asked = asyncio.create_task(client.get(f"{url}/?60", headers={"x-note": str(tmp_path / "one")}))
            await until((tmp_path / "one").exists)
            old = stack.kill("worker")
            with pytest.raises(httpx.TransportError):
                await anext(streaming)
            assert (await asked).status_code == 502
        await asyncio.to_thread(stack.wait_restarted, "worker", old)
        assert await until(lambda: answers(client, url))

        # NATS: 503 at once, and no restart of anything else.
        gateway = stack.part("gateway").pid
        supervisor = stack.info.pid
        os.kill(supervisor, signal.SIGSTOP)  # nobody starts it again meanwhile
        try:
            old = stack.kill("nats")
            refused = await until(lambda: refusal(client, url))
            assert refused.json()["code"] == "service"
        finally:
            os.kill(supervisor, signal.SIGCONT)
        await asyncio.to_thread(stack.wait_restarted, "nats", old)
        assert await until(lambda: answers(client, url))
        assert stack.part("gateway").pid == gateway

        # The gateway: its connections break, the next one serves at the same address.
        async with begun(client, url) as streaming:
            old = stack.kill("gateway")
            with pytest.raises(httpx.TransportError):
                await anext(streaming)
        await asyncio.to_thread(stack.wait_restarted, "gateway", old)
        assert await until(lambda: answers(client, url))

        # A gateway that is told to end finishes what is under way.
        asked = asyncio.create_task(client.get(f"{url}/?1.5", headers={"x-note": str(tmp_path / "two")}))
        await until((tmp_path / "two").exists)
        old = stack.part("gateway").pid or 0
        os.kill(old, signal.SIGTERM)
        assert (await asked).text == "done"
        await asyncio.to_thread(stack.wait_restarted, "gateway", old)


async def refusal(client: httpx.AsyncClient, url: str) -> httpx.Response | None:
    """Return a 503, once there is one that waited for nothing."""
    try:
        answer = await client.get(url, timeout=2)
    except httpx.TransportError:
        return None
    return answer if answer.status_code == 503 and answer.elapsed.total_seconds() < 1.0 else None
