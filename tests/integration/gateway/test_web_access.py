"""Limits and proxy tokens on a whole stack: by command, over REST, and what they do to calls."""

import itertools
import json
from typing import Any

import httpx
import pytest
from running_stacks import RunningStack
from waiting import until

Api = httpx.AsyncClient
ALONE = "the scheduler leases no tokens"  # what a gateway says that keeps limits by itself
CALL = "/apps/rest-program/functions/square/calls"


@pytest.mark.usefixtures("app_id")
async def test_calls_above_the_limit_of_their_app_are_refused_until_it_is_removed(
    api: Api, stack: RunningStack, app_id: str
) -> None:
    limit = ("workspace", "rate-limit")
    app = ("--app", "rest-program")
    log = stack.home / "logs" / "gateway.log"
    logged = len(log.read_text())
    done = stack.cli(*limit, "set", *app, "--rate", "0.01", "--burst", "3")
    assert "✓ app rest-program: 0.01 per second, 3 at once" in done.stderr
    try:
        answers = []
        for path in itertools.cycle((CALL, CALL, CALL.replace("rest-program", app_id))):
            answers.append(await api.post(path, json={"args": [2]}))
            if answers[-1].status_code != 202:
                break
        assert len(answers) > 3  # and more where the gateway has only just heard of the limit
        refused = answers[-1]
        assert refused.status_code == 429
        assert refused.json()["code"] == "resource_exhausted"
        # What is taken without the scheduler is owed, at most a whole bucket.
        most = 400 if ALONE in log.read_text()[logged:] else 100
        assert 1 <= int(refused.headers["Retry-After"]) <= most
        assert refused.headers["RateLimit-Policy"] == '"app";q=3;w=300'
        assert refused.headers["RateLimit"] == f'"app";r=0;t={refused.headers["Retry-After"]}'
        (listed,) = json.loads(stack.cli(*limit, "list", "--json").stdout)
        assert (listed["kind"], listed["name"], listed["per_second"]) == ("app", "rest-program", 0.01)
    finally:
        assert stack.cli(*limit, "remove", *app).returncode == 0

    async def let_through() -> bool:
        return (await api.post(CALL, json={"args": [2]})).status_code == 202

    await until(let_through)
    assert (await api.get("/rate-limits")).json()["items"] == []
    shown = (await api.put("/rate-limits/token/pt-x", json={"rate": 2})).json()
    assert shown == {"kind": "token", "environment": None, "name": "pt-x", "rate": 2.0, "burst": 10.0}
    assert (await api.delete("/rate-limits/token/pt-x")).status_code == 204
    assert (await api.delete("/rate-limits/workspace")).status_code == 404


async def test_proxy_tokens_are_made_and_revoked_by_command_and_over_rest(
    api: Api, stack: RunningStack
) -> None:
    tokens = ("workspace", "proxy-tokens")
    by_command = json.loads(stack.cli(*tokens, "create", "--name", "curl", "--json").stdout)
    over_rest = (await api.post("/proxy-tokens", json={"name": "rest"})).json()
    made = [over_rest["id"], by_command["token_id"]]

    async def listed() -> list[dict[str, Any]]:
        items = (await api.get("/proxy-tokens")).json()["items"]
        return [each for each in items if each["id"] in made]  # others have theirs

    assert [each["name"] for each in await listed()] == ["rest", "curl"]
    assert over_rest["secret"] not in json.dumps(await listed())
    assert by_command["token_id"] in stack.cli(*tokens, "list").stdout
    assert (await api.delete(f"/proxy-tokens/{over_rest['id']}")).status_code == 204
    assert stack.cli(*tokens, "revoke", by_command["token_id"], "-y").returncode == 0
    assert await listed() == []
    every = json.loads(stack.cli(*tokens, "list", "--all", "--json").stdout)
    assert {each["token_id"] for each in every} >= set(made)
