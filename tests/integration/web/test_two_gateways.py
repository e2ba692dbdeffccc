"""Two gateways of one installation, one of which is killed: in the middle of requests, of event streams, and
while it holds tokens of a limit.
"""

import asyncio
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack, start
from waiting import until

APP = "doubled"
PROGRAM = Path(__file__).with_name("doubled_program.py")
PATH = f"/f/local--{APP}-web"
LONG = 60.0  # seconds
LIMIT = ("workspace", "rate-limit")
RATE, BURST = 3.0, 12.0
ALONE = "the scheduler leases no tokens"  # what a gateway says that keeps limits by itself

Client = httpx.AsyncClient


def quiet_port() -> int:
    """Return a free port, and none of those that the system gives to whoever asks for any."""
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", random.randint(20_000, 32_000))) as probe:
            return int(probe.getsockname()[1])


class Other:
    """A second gateway, beside that of the stack."""

    def __init__(self, stack: RunningStack) -> None:
        port = quiet_port()
        own = Path(f"/proc/{stack.part('gateway').pid}/environ").read_bytes().decode()
        settings = dict(each.split("=", 1) for each in own.split("\0") if each)
        for name in ("TIDEMILL_READY_FD", "TIDEMILL_GATE_FD"):
            settings.pop(name, None)
        settings |= {"TIDEMILL_GATEWAY_PORT": str(port), "TIDEMILL_HEALTH_PORT": "0"}
        self.url = f"http://127.0.0.1:{port}{PATH}"
        self._process = start([sys.executable, "-m", "tidemill_gateway"], settings)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self.said = "".join(self._process.communicate(timeout=LONG))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client without patience for nothing."""
    async with httpx.AsyncClient(timeout=LONG) as client:
        yield client


@pytest.fixture
def url(stack: RunningStack) -> Iterator[str]:
    """The app's address at the stack's own gateway."""
    done = stack.cli("deploy", str(PROGRAM))
    assert done.returncode == 0, done.stderr
    yield f"{stack.info.gateway_url}{PATH}"
    assert stack.cli("app", "stop", APP, "-y").returncode == 0


@contextmanager
def other_gateway(stack: RunningStack) -> Iterator[Other]:
    other = Other(stack)
    try:
        yield other
    finally:
        other.kill()


async def answers(client: Client, url: str) -> bool:
    try:
        return (await client.get(f"{url}/")).status_code == 200
    except httpx.TransportError:
        return False


async def read(client: Client, url: str, folder: Path, last: int, upto: int = 0) -> list[int]:
    """Return the events behind `last`: up to one, to the end, or to where the connection breaks."""
    found = []
    headers = {"Last-Event-ID": str(last)} if last else {}
    try:
        async with client.stream(
            "GET", f"{url}/numbers", params={"folder": str(folder)}, headers=headers
        ) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    found.append(int(line.removeprefix("data: ")))
                    if found[-1] == upto:
                        break
    except httpx.TransportError:
        pass
    return found


async def test_what_a_killed_gateway_had_under_way_goes_on_at_another(
    stack: RunningStack, client: Client, url: str, tmp_path: Path
) -> None:
    with other_gateway(stack) as other:
        await until(lambda: answers(client, url), LONG)
        await until(lambda: answers(client, other.url), LONG)
        held = asyncio.create_task(client.get(f"{other.url}/hold", params={"folder": str(tmp_path)}))
        begun = asyncio.create_task(read(client, other.url, tmp_path, 0))
        assert await read(client, other.url, tmp_path, 0, upto=10) == list(range(1, 11))
        assert await read(client, url, tmp_path, 4, upto=10) == list(range(5, 11))
        await until((tmp_path / "held").exists, LONG)
        other.kill()
        with pytest.raises(httpx.TransportError):
            await held
        broken = await begun
        assert broken == list(range(1, len(broken) + 1))
    (tmp_path / "go").touch()
    got = list(range(1, 8))  # of the last three the client is not sure
    while got[-1] < 20:
        more = await read(client, url, tmp_path, got[-1])
        assert more, "nothing comes any more"
        got += more
    assert got == list(range(1, 21))
    assert (await client.get(f"{url}/hold", params={"folder": str(tmp_path)})).json() == "held"


async def test_the_tokens_of_a_killed_gateway_are_made_up_for_and_the_limit_holds(
    stack: RunningStack, client: Client, url: str
) -> None:
    admitted = 0

    async def ask(at: str) -> bool:
        nonlocal admitted
        status = (await client.get(f"{at}/")).status_code
        assert status in (200, 429)
        admitted += status == 200
        return status == 200

    async def is_spent() -> bool:
        """Tell whether both gateways have just refused: what they let through from here on came since."""
        nonlocal admitted, began
        began = time.monotonic()
        refused = [not all(await each(at)) for at in (url, other.url)]
        admitted = 0
        return all(refused)

    async def each(at: str) -> list[bool]:
        return await asyncio.gather(*(ask(at) for _ in range(6)))

    async def gets(at: str, count: int) -> None:
        wanted = admitted + count
        await until(lambda: _is_admitted(lambda: ask(at), lambda: admitted >= wanted), LONG)

    began, logged = 0.0, len((stack.home / "logs" / "gateway.log").read_text())
    with other_gateway(stack) as other:
        await until(lambda: answers(client, url), LONG)
        await until(lambda: answers(client, other.url), LONG)
        limits = ("--rate", str(RATE), "--burst", str(BURST))
        assert stack.cli(*LIMIT, "set", "--app", APP, *limits).returncode == 0
        try:
            await until(is_spent, LONG)
            await gets(other.url, 2)
            other.kill()
            await gets(url, 6)
            said = other.said + (stack.home / "logs" / "gateway.log").read_text()[logged:]
            if ALONE not in said:  # a machine that is so busy that the scheduler does not answer in time
                assert admitted <= RATE * (time.monotonic() - began) + 1
        finally:
            assert stack.cli(*LIMIT, "remove", "--app", APP).returncode == 0


async def _is_admitted(ask: Callable[[], Awaitable[bool]], is_enough: Callable[[], bool]) -> bool:
    await ask()
    return is_enough()
