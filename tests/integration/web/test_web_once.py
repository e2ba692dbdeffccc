"""Requests that are run once, and what a response tells of the time that it took."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running_stacks import RunningStack
from waiting import until, wait_until

from tidemill._wire.phases import OF_START

Client = httpx.AsyncClient
APP = "once-program"


@pytest.fixture(scope="module")
def url(stack: RunningStack) -> Iterator[str]:
    """The address of a function that says how often it ran."""
    done = stack.cli("deploy", str(Path(__file__).with_name("once_program.py")))
    assert done.returncode == 0, done.stderr
    found = f"{stack.info.gateway_url}/f/local--{APP}-counted"
    wait_until(lambda: httpx.get(found, timeout=60).status_code != 404, what="for the route")
    yield found
    assert stack.cli("app", "stop", APP, "-y").returncode == 0


async def test_a_request_with_a_key_runs_once(client: Client, url: str, tmp_path: Path) -> None:
    runs, go = tmp_path / "runs", tmp_path / "go"
    params = {"path": str(runs), "until": str(go)}

    def send(key: str, content: bytes = b"body") -> asyncio.Task[httpx.Response]:
        headers = {"Idempotency-Key": key}
        return asyncio.ensure_future(client.post(url, params=params, headers=headers, content=content))

    left = send("one")
    await until(runs.exists)
    left.cancel()  # a client that goes does not end it
    again = [send("one"), send("one")]
    go.touch()
    answers = await asyncio.gather(*again)
    assert [answer.text for answer in answers] == ["run 1 of body"] * 2
    assert {answer.headers["x-mine"] for answer in answers} == {"1"}
    assert {answer.headers["idempotency-replayed"] for answer in answers} == {"true"}

    other = await send("one", b"other body")
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
    second = await send("two")
    assert second.text == "run 2 of body"
    assert "idempotency-replayed" not in second.headers
    assert (await send("two" * 100)).status_code == 400
    assert (await send("three", bytes(1 << 21))).status_code == 413


async def test_a_response_tells_what_its_time_went_for(client: Client, url: str, tmp_path: Path) -> None:
    answer = await client.post(url, params={"path": str(tmp_path / "runs")})
    assert answer.text == "run 1 of "
    parts = [part.split(";dur=") for part in answer.headers["server-timing"].split(", ")]
    names = [name for name, _ in parts]
    assert names in (["queue", "start", "run"], ["queue", *OF_START, "run"])
    assert 1e3 * answer.elapsed.total_seconds() + 60_000 > sum(float(span) for _, span in parts) > 0
