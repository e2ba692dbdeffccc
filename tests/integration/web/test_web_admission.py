"""Who is let in to web functions, on a whole stack."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from running_stacks import RunningStack
from waiting import until, wait_until
from websockets.exceptions import InvalidStatus

Client = httpx.AsyncClient
APP = "guarded-program"
TOKENS = ("workspace", "proxy-tokens")
LIMIT = ("workspace", "rate-limit")


@pytest.fixture(scope="module")
def address(stack: RunningStack) -> Iterator[str]:
    """The beginning of the addresses of a deployed app's functions."""
    done = stack.cli("deploy", str(Path(__file__).with_name("guarded_program.py")))
    assert done.returncode == 0, done.stderr
    found = f"{stack.info.gateway_url}/f/local--{APP}-"
    wait_until(lambda: httpx.get(f"{found}guarded", timeout=60).status_code == 401, what="for the routes")
    yield found
    assert stack.cli("app", "stop", APP, "-y").returncode == 0


def containers_of(stack: RunningStack, function: str) -> list[str]:
    """Return the containers of one of the app's functions."""
    every = json.loads(stack.cli("container", "list", "--json").stdout)
    return [each["container_id"] for each in every if (each["app_name"], each["function"]) == (APP, function)]


async def test_only_proxy_tokens_open_what_requires_them(
    stack: RunningStack, client: Client, address: str
) -> None:
    url = f"{address}guarded"
    made = json.loads(stack.cli(*TOKENS, "create", "--json").stdout)
    right = {"Modal-Key": made["token_id"], "Modal-Secret": made["token_secret"]}
    wrong = right | {"Modal-Secret": "ps-wrong"}
    for headers in ({}, wrong, {"Tidemill-Key": made["token_id"]}):
        refused = await client.get(url, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "auth")
        assert "WWW-Authenticate" in refused.headers
    with pytest.raises(InvalidStatus, match="401"):
        await websockets.connect(url.replace("http:", "ws:"), open_timeout=60)
    assert not containers_of(stack, "guarded")

    await until(lambda: answers(client, url, right, 200))  # the gateway hears of tokens behind the command
    opened = await client.get(url, headers=right)
    assert (opened.status_code, opened.json()) == (200, [])  # the function does not see the token
    ours = {"Tidemill-Key": made["token_id"], "Tidemill-Secret": made["token_secret"]}
    assert (await client.get(url, headers=ours)).status_code == 200
    assert stack.cli(*TOKENS, "revoke", made["token_id"], "-y").returncode == 0
    await until(lambda: answers(client, url, right, 401))


async def answers(client: Client, url: str, headers: dict[str, str], status: int) -> bool:
    return (await client.get(url, headers=headers)).status_code == status


async def test_requests_above_a_limit_start_no_container(
    stack: RunningStack, client: Client, address: str
) -> None:
    """They are for another function than those that use the limit up: that may be given more containers."""
    url, refused = f"{address}open-to-all", f"{address}never-reached"
    await client.get(url)
    limited = ("--app", APP, "--rate", "0.01", "--burst", "1")
    assert stack.cli(*LIMIT, "set", *limited).returncode == 0
    try:
        await until(lambda: is_limited(client, url))
        answers = await asyncio.gather(*(client.get(refused) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {429}
        assert answers[0].headers["RateLimit-Policy"] == '"app";q=1;w=100'
        assert int(answers[0].headers["Retry-After"]) > 0
        with_body = await client.post(refused, content=b"x")
        assert shape(answers[0]) == shape(with_body)
        assert answers[0].json()["request_id"] != answers[1].json()["request_id"]
        assert not containers_of(stack, "never_reached")
    finally:
        assert stack.cli(*LIMIT, "remove", "--app", APP).returncode == 0


def shape(answer: httpx.Response) -> dict[str, Any]:
    """Return what is the same of every refusal, however soon it is made."""
    waits = ("retry-after", "ratelimit", "date")
    told = {name: value for name, value in answer.headers.items() if name not in waits}
    return {"status": answer.status_code, **told, **answer.json(), "request_id": ""}


async def is_limited(client: Client, url: str) -> bool:
    return (await client.get(url)).status_code == 429
