"""How the API answers, whatever it is asked: who may, what is wrong, what has not changed."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_stacks import RunningStack

Api = httpx.AsyncClient


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    document = answer.json()
    return (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
        and document["status"] == status
        and document["code"] == code
        and document["type"].startswith("urn:tidemill:problem:")
        and document["request_id"] == answer.headers["x-request-id"]
    )


# --- who may


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer nonsense",
        "Bearer ak-main-00000000000000000000000000:wrong",
        "Basic " + base64.b64encode(b"member:wrong").decode(),
        "Bearer {id}:wrong",
        "Bearer other:{secret}",
        "Bearer {id}:",
    ],
)
async def test_without_a_good_token_there_is_nothing_to_see(
    api: Api, token: tuple[str, str], authorization: str | None
) -> None:
    headers = {}
    if authorization is not None:
        headers["Authorization"] = authorization.replace("{id}", token[0]).replace("{secret}", token[1])
    async with httpx.AsyncClient(base_url=api.base_url, timeout=60.0) as anybody:
        for path in ("/workers", "/nowhere", "/apps/ap-0"):
            answer = await anybody.get(path, headers=headers)
            assert is_problem(answer, 401, "auth")
            assert "Bearer" in answer.headers["www-authenticate"]


async def test_a_token_may_come_as_basic_credentials(api: Api, token: tuple[str, str]) -> None:
    async with httpx.AsyncClient(base_url=api.base_url, auth=token, timeout=60.0) as client:
        assert (await client.get("/workers")).status_code == 200


async def test_the_document_and_its_page_need_no_token(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.base_url, timeout=60.0) as anybody:
        document = (await anybody.get("/openapi.json")).json()
        page = await anybody.get("/docs")
    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": "/api/v1"}]
    assert {"/apps", "/calls/{call}", "/apps/{app}/functions/{function}/calls"} <= set(document["paths"])
    assert page.headers["content-type"].startswith("text/html")
    assert "/api/v1/calls/{call}" in page.text


async def test_operators_of_the_document_have_names_and_descriptions(api: Api) -> None:
    document = (await api.get("/openapi.json")).json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["description"] for operation in operations)


# --- what is wrong


async def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    assert is_problem(await api.get("/nowhere"), 404, "not_found")
    answer = await api.put("/apps/some")
    assert is_problem(answer, 405, "method")
    assert answer.headers["allow"] == "GET, DELETE, PATCH"


async def test_every_fault_of_a_request_is_told_by_its_place(api: Api) -> None:
    answer = await api.get("/containers", params={"limit": 0, "cursor": "x" * 600})
    assert is_problem(answer, 422, "invalid")
    assert {fault["where"] for fault in answer.json()["errors"]} == {"query.limit", "query.cursor"}


async def test_a_body_that_is_no_json_is_a_problem(api: Api) -> None:
    headers = {"content-type": "application/json"}
    answer = await api.patch("/apps/some", content=b"{", headers=headers)
    assert is_problem(answer, 422, "invalid")
    answer = await api.patch("/apps/some", json={"tags": {}, "names": {}})
    assert is_problem(answer, 422, "invalid")


async def test_a_body_above_the_limit_is_a_problem(api: Api) -> None:
    answer = await api.patch("/apps/some", json={"tags": {"a": "x" * (1 << 20)}})
    assert is_problem(answer, 413, "too_large")


async def test_a_body_in_chunks_is_bounded_too(api: Api) -> None:
    async def pieces() -> Any:
        yield b'{"tags": {"a": "'
        for _ in range(40):
            yield b"x" * (64 << 10)

    headers = {"content-type": "application/json"}
    answer = await api.patch("/apps/some", content=pieces(), headers=headers)
    assert is_problem(answer, 413, "too_large")


async def test_a_request_keeps_the_id_that_it_came_with(api: Api) -> None:
    assert (await api.get("/workers", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    bad = await api.get("/workers", headers={"X-Request-Id": "a b"})
    assert bad.headers["x-request-id"] not in ("a b", "")


# --- what has not changed


async def test_what_the_client_has_already_is_not_sent_again(api: Api, app_id: str) -> None:
    first = await api.get(f"/apps/{app_id}")
    again = await api.get(f"/apps/{app_id}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = await api.get(f"/apps/{app_id}", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


async def test_workers_are_shown_with_what_they_have(api: Api) -> None:
    workers = (await api.get("/workers")).json()["items"]
    assert all(worker["id"].startswith("wo-") for worker in workers)
    assert all(worker["total_cpu"] >= worker["free_cpu"] for worker in workers)
    assert False in [worker["draining"] for worker in workers]


Busy = Callable[[int], Awaitable[list[str]]]


@pytest.fixture
async def busy(api: Api, app_id: str, until: Any, tmp_path: Path) -> AsyncIterator[Busy]:
    """Starts calls that wait until the test is over, and returns their containers, which the API shows: idle
    ones may go at any time.
    """
    calls: list[asyncio.Task[httpx.Response]] = []

    async def start(number: int) -> list[str]:
        def found() -> list[str]:
            return [path.name for path in tmp_path.iterdir()]

        async def shown() -> bool:
            items = (await api.get("/containers?limit=500")).json()["items"]
            return set(found()) <= {each["id"] for each in items if each["state"] == "busy"}

        path = f"/apps/{app_id}/functions/hold/calls?wait=60"
        asked = (api.post(path, json={"args": [str(tmp_path)]}) for _ in range(number))
        calls.extend(map(asyncio.create_task, asked))
        await until(lambda: len(found()) >= number)
        await until(shown)
        return found()

    yield start
    (tmp_path / "gate").touch()
    assert {answer.status_code for answer in await asyncio.gather(*calls)} <= {200, 202}


async def test_containers_come_in_pages_that_lead_on(api: Api, busy: Busy) -> None:
    running = await busy(2)
    found, path = [], "/containers?limit=1"
    while path:
        answer = await api.get(path)
        found += [container["id"] for container in answer.json()["items"]]  # the last one may have gone
        path = answer.links["next"]["url"].removeprefix("/api/v1") if "next" in answer.links else ""
    assert set(running) <= set(found)
    assert found == sorted(found)


async def test_a_container_can_be_stopped(api: Api, busy: Busy, until: Any) -> None:
    """What it was running runs again in another one."""
    container = (await busy(1))[0]
    assert (await api.delete(f"/containers/{container}?graceful=false")).status_code == 204

    async def gone() -> bool:
        left = (await api.get("/containers?limit=500")).json()["items"]
        return container not in {each["id"] for each in left}

    await until(gone)
    assert is_problem(await api.delete(f"/containers/{container}"), 404, "not_found")


# --- what it needs is not there


async def test_without_the_broker_the_answer_is_503_at_once(mortal_stack: RunningStack, until: Any) -> None:
    """The supervisor is stopped first: it would start the broker again."""
    import os
    import signal

    info = mortal_stack.info
    os.kill(info.pid, signal.SIGSTOP)
    try:
        headers = {"Authorization": f"Bearer {info.token_id}:{info.token_secret}"}
        url = f"{info.gateway_url}/api/v1"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20.0) as api:
            assert (await api.get("/workers")).status_code == 200
            mortal_stack.kill("nats")
            for request in (
                api.get("/workers"),
                api.post("/apps/some/functions/f/calls?wait=30", json={}),
                api.get(f"/calls/fc-{'0' * 26}/results/0?wait=30"),
                api.delete(f"/calls/fc-{'0' * 26}"),
            ):
                answer = await request
                assert is_problem(answer, 503, "service"), json.dumps(answer.json())
                assert answer.headers["retry-after"]
    finally:
        os.kill(info.pid, signal.SIGCONT)
