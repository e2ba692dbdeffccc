"""What clients get when parts of a stack are lost while their requests are under way."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
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


def pid_of(stack: RunningStack, name: str) -> int:
    pid = stack.part(name).pid
    assert pid is not None  # 0 would be this process and its like
    return pid


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
@pytest.mark.timeout(300)  # parts of the stack are started again five times
async def test_every_loss_is_an_honest_end_and_the_stack_goes_on(
    mortal_stack: RunningStack, tmp_path: Path
) -> None:
    stack = mortal_stack
    gateway_url, token = stack.info.gateway_url, f"{stack.info.token_id}:{stack.info.token_secret}"
    async with httpx.AsyncClient(timeout=60.0, headers={"Authorization": f"Bearer {token}"}) as client:
        url = await asyncio.to_thread(deploy, stack)
        await until(lambda: answers(client, url))
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

        # NATS: what is queued comes back, all else is 503 at once, and nothing else is started again. That
        # holds for calls over REST, too.
        gateway = stack.part("gateway").pid
        supervisor = stack.info.pid
        passed, unknown = client.build_request("GET", url), client.build_request("GET", f"{url}-unknown")
        kept = client.build_request("POST", url, headers={"idempotency-key": "lost"})
        patient = partial(client.get, timeout=200)  # it waits for as long as all that follows takes
        asked = asyncio.create_task(patient(f"{url}/?1", headers={"x-note": str(tmp_path / "queued")}))
        await until((tmp_path / "queued").exists)
        assert (await client.get(url)).text == "done"  # so the gateway has heard that the other one is stored
        calls = f"{gateway_url}/api/v1/apps/lossy/functions/work/calls"
        called, waited = (client.build_request("POST", f"{calls}?wait={wait}", json={}) for wait in (0, 60))
        (result,) = (await client.send(called)).json()["results"]
        os.kill(supervisor, signal.SIGSTOP)  # nobody starts it again meanwhile
        try:
            os.kill(pid_of(stack, "nats"), signal.SIGSTOP)  # it says nothing any more
            lost = asyncio.Event()
            read = client.build_request("POST", url, content=in_two(lost), headers={"content-length": "2"})
            sent = (passed, kept, read, called, waited)
            waiting = [asyncio.create_task(client.send(each)) for each in sent]
            await client.get(f"{gateway_url}/healthz")
            old = stack.kill("nats")
            lost.set()
            for answer in await asyncio.gather(*waiting):
                assert is_unreachable(answer)
            for each in (passed, kept, unknown, called):
                await until(partial(is_refused_at_once, client, each))
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert (await asked).text == "done"
        await asyncio.to_thread(stack.wait_restarted, "nats", old)
        assert await until(lambda: answers(client, url))
        assert await until(lambda: answers(client, f"{gateway_url}{result}?wait=60"))
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
        old = pid_of(stack, "gateway")
        os.kill(old, signal.SIGTERM)
        assert (await asked).text == "done"
        await asyncio.to_thread(stack.wait_restarted, "gateway", old)


async def in_two(second: asyncio.Event) -> AsyncIterator[bytes]:
    """Give a body of which the second half comes when it may."""
    yield b"1"
    await second.wait()
    yield b"2"


async def is_refused_at_once(client: httpx.AsyncClient, request: httpx.Request) -> bool:
    """Have a request refused; tell whether that took less than 0.1 s: not each does on a busy machine."""
    answer = await client.send(request)
    assert is_unreachable(answer)
    return answer.elapsed.total_seconds() < 0.1


def is_unreachable(answer: httpx.Response) -> bool:
    assert answer.status_code == 503, answer.text
    assert answer.json()["detail"] == "the message broker cannot be reached"  # it is known, not supposed
    return answer.json()["code"] == "service" and bool(answer.headers["retry-after"])
