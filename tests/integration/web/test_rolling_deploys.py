"""A new version under load: nobody's call fails, and nobody waits for the new version's containers."""

import asyncio
import fcntl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack
from waiting import until

import tidemill

PROGRAM = Path(__file__).with_name("rolling_program.py")
LONG = 60.0  # seconds


class Load:
    """Callers that call on and on; what each was answered, in order."""

    def __init__(self, *calls: Callable[[], Awaitable[str]]) -> None:
        self.answers: list[list[str]] = [[] for _ in calls]
        self._calls = calls
        self._ending = False

    async def run(self) -> None:
        await asyncio.gather(*map(self._call, self._calls, self.answers))

    async def _call(self, call: Callable[[], Awaitable[str]], answers: list[str]) -> None:
        while not self._ending:
            answers.append(await call())

    async def hear(self, said: str, times: int = 3) -> None:
        """Return when each caller has been answered this so many times more."""
        wanted = [answers.count(said) + times for answers in self.answers]
        await until(
            lambda: all(
                answers.count(said) >= count for answers, count in zip(self.answers, wanted, strict=True)
            ),
            LONG,
            f"to hear {said}",
        )

    def end(self) -> None:
        self._ending = True


@pytest.fixture
async def rolling(stack: RunningStack) -> AsyncIterator[RunningStack]:
    """A stack with the first version."""
    first = stack.start_cli("deploy", str(PROGRAM), environment={"ROLLING_SAID": "one"})
    _, errors = first.communicate(timeout=LONG)
    assert first.returncode == 0, errors
    yield stack
    assert stack.cli("app", "stop", "rolling", "-y").returncode == 0


async def test_calls_and_requests_go_to_a_new_version_once_it_is_ready(
    rolling: RunningStack, own_client: tidemill.Client, tmp_path: Path
) -> None:
    answer = tidemill.Function.from_name("rolling", "answer", client=own_client)
    url = f"{rolling.info.gateway_url}/f/local--rolling-page/"
    async with httpx.AsyncClient(timeout=LONG) as web, asyncio.TaskGroup() as tasks:

        async def ask() -> str:
            response = await web.get(url)
            assert response.status_code == 200, response.text
            return str(response.json())

        async def is_there() -> bool:
            return (await web.get(url)).status_code == 200

        await until(is_there, LONG)
        load = Load(answer.remote.aio, answer.remote.aio, ask, ask)
        tasks.create_task(load.run())
        await load.hear("one")
        gate = tmp_path / "gate"
        gate.mkdir()
        with (gate / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            said = {"ROLLING_SAID": "two", "ROLLING_GATE": str(gate)}
            deploying = rolling.start_cli("deploy", str(PROGRAM), environment=said)
            await until(lambda: len(list(gate.iterdir())) >= 3, LONG, "for the new version's containers")
            await load.hear("one")  # nobody waits for them
            assert deploying.poll() is None
        _, errors = await asyncio.to_thread(deploying.communicate, timeout=LONG)
        assert deploying.returncode == 0, errors
        await load.hear("two")
        load.end()
    for answers in load.answers:
        assert answers == sorted(answers, key=["one", "two"].index)
