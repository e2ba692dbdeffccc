"""Calls by REST."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_stacks import RunningStack

from tidemill import Client, Function
from tidemill._wire import coding, ids, subjects
from tidemill._wire.apps import AppDetails, GetApp
from tidemill._wire.idempotency import Claim
from tidemill._wire.messages import Chunk, Format, Payload
from tidemill_common.bus.nats import connect
from tidemill_gateway import decisions

Api = httpx.AsyncClient
APP = "rest-program"


async def call(
    api: Api, app: str, function: str, body: Any, wait: float = 30, **headers: str
) -> httpx.Response:
    url = f"/apps/{app}/functions/{function}/calls"
    return await api.post(url, json=body, params={"wait": wait} if wait else {}, headers=headers)


async def result(api: Api, accepted: httpx.Response, index: int = 0) -> httpx.Response:
    assert accepted.status_code == 202, accepted.text
    path = accepted.json()["results"][index].removeprefix("/api/v1")
    return await api.get(path, headers={"Prefer": "wait=30"})


# --- results


async def test_a_call_that_is_waited_for_is_answered_with_its_result(api: Api, app_id: str) -> None:
    answer = await call(api, app_id, "square", {"args": [7]})
    assert (answer.status_code, answer.json()) == (200, 49)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"].startswith("/api/v1/calls/fc-")
    assert answer.headers["preference-applied"] == "wait=30"


async def test_arguments_arrive_as_they_were_sent(api: Api, app_id: str) -> None:
    body = {"args": [None, 1.5, "é\u0000", [{"a": 2**60}]], "kwargs": {"b": True}}
    assert (await call(api, app_id, "echo", body)).json() == body


async def test_a_call_without_arguments_needs_only_an_empty_object(api: Api, app_id: str) -> None:
    assert (await call(api, app_id, "echo", {})).json() == {"args": [], "kwargs": {}}


async def test_what_json_has_no_word_for_is_written_as_is_usual(api: Api, app_id: str) -> None:
    assert (await call(api, app_id, "rich", {})).json() == ["2026-01-02", [3], "AP8="]


async def test_a_call_that_takes_longer_is_answered_with_its_address(
    api: Api, app_id: str, tmp_path: Path
) -> None:
    path = tmp_path / "go"
    accepted = await call(api, app_id, "wait_for", {"args": [str(path)]}, wait=0.1)
    assert accepted.headers["location"] == accepted.json()["url"]
    assert (await api.get(accepted.json()["results"][0].removeprefix("/api/v1"))).status_code == 202
    (tmp_path / "written").write_text("done")
    (tmp_path / "written").rename(path)
    answer = await result(api, accepted)
    assert (answer.status_code, answer.json()) == (200, "done")


async def test_many_inputs_are_one_call(api: Api, app_id: str) -> None:
    inputs = [{"args": [n]} for n in range(20)]
    answer = await call(api, app_id, "square", {"inputs": inputs})
    assert answer.json() == [n * n for n in range(20)]
    accepted = await call(api, app_id, "square", {"inputs": inputs}, wait=0)
    assert accepted.json()["num_inputs"] == 20
    assert (await result(api, accepted, 19)).json() == 361


async def test_large_bodies_and_large_results_pass(api: Api, app_id: str) -> None:
    length = 3 << 20
    assert (await call(api, app_id, "size", {"args": ["x" * length]})).json() == length
    assert (await call(api, app_id, "text_of", {"args": [length]})).json() == "x" * length


async def test_a_body_above_the_limit_is_refused(api: Api, app_id: str) -> None:
    answer = await call(api, app_id, "size", {"args": ["x" * (65 << 20)]})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_result_that_is_too_large_for_json_is_told_so(api: Api, app_id: str) -> None:
    answer = await call(api, app_id, "text_of", {"args": [40 << 20]})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


# --- failures


async def test_an_exception_comes_as_a_problem_with_its_traceback(api: Api, app_id: str) -> None:
    answer = await call(api, app_id, "fail", {"args": ["good"]})
    problem = answer.json()
    assert answer.status_code == 424
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["location"].startswith("/api/v1/calls/fc-")
    assert problem["code"] == "function_failed"
    assert problem["detail"] == "ValueError: not good"
    assert problem["exception"] == {"type": "ValueError", "module": "builtins", "message": "not good"}
    assert 'raise ValueError(f"not {x}")' in problem["traceback"]


async def test_a_value_that_only_python_knows_is_refused_by_its_type(api: Api, app_id: str) -> None:
    answer = await call(api, app_id, "pay", {})
    assert (answer.status_code, answer.json()["code"]) == (422, "not_representable")
    assert "Money" in answer.json()["detail"]


async def test_a_pickled_result_of_a_python_caller_is_not_read(
    api: Api, app_id: str, stack: RunningStack
) -> None:
    info = stack.info
    async with Client.from_credentials(
        info.token_id, info.token_secret, server_url=info.server_url
    ) as client:
        made = await Function.from_name(APP, "pay", client=client).spawn.aio()
    answer = await api.get(f"/calls/{made.object_id}/results/0", params={"wait": 30})
    assert (answer.status_code, answer.json()["code"]) == (422, "not_representable")


async def test_a_timeout_of_the_function_is_told(api: Api, app_id: str) -> None:
    answer = await call(api, app_id, "too_slow", {})
    assert (answer.status_code, answer.json()["code"]) == (424, "function_timeout")


async def test_a_call_can_be_cancelled(api: Api, app_id: str, tmp_path: Path) -> None:
    accepted = await call(api, app_id, "wait_for", {"args": [str(tmp_path / "never")]}, wait=0)
    path = accepted.json()["url"].removeprefix("/api/v1")
    assert (await api.delete(path)).status_code == 204
    answer = await result(api, accepted)
    assert (answer.status_code, answer.json()["code"]) == (424, "cancelled")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "truncated"),
        (b"[]", "object"),
        (b'{"args": {}}', "array"),
        (b'{"kwargs": []}', "object"),
        (b'{"arguments": []}', "arguments"),
        (b'{"inputs": []}', "between 1"),
        (b'{"inputs": [{}], "args": [1]}', "either"),
        (b'{"args": ["\xff"]}', "utf-8"),
    ],
)
async def test_a_body_that_is_no_call_is_refused(api: Api, app_id: str, body: bytes, told: str) -> None:
    headers = {"content-type": "application/json"}
    answer = await api.post(f"/apps/{app_id}/functions/square/calls", content=body, headers=headers)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


async def test_a_body_has_to_be_json(api: Api, app_id: str) -> None:
    answer = await api.post(f"/apps/{app_id}/functions/square/calls", content=b"x=1")
    assert answer.status_code == 415


async def test_functions_that_cannot_be_called_are_told(api: Api, app_id: str) -> None:
    assert (await call(api, app_id, "nothing", {})).status_code == 404
    assert (await call(api, "no-app", "square", {})).status_code == 404
    assert (await call(api, app_id, "numbers", {"args": [3]})).status_code == 422


async def test_unknown_calls_and_inputs_are_not_found(api: Api, app_id: str) -> None:
    made = (await call(api, app_id, "square", {"args": [1]})).headers["location"].removeprefix("/api/v1")
    assert (await api.get(f"{made}/results/1")).status_code == 404
    unknown = ids.new(ids.CALL)
    assert (await api.get(f"/calls/{unknown}/results/0")).status_code == 404
    assert (await api.delete(f"/calls/{unknown}")).status_code == 404


# --- idempotency


async def test_the_same_key_and_body_are_one_call(api: Api, app_id: str, tmp_path: Path) -> None:
    key, path = ids.new("key"), str(tmp_path / "notes")
    body = {"args": [path]}
    keyed = {"Idempotency-Key": key}
    answers = await asyncio.gather(*(call(api, app_id, "note", body, **keyed) for _ in range(10)))
    assert {(answer.status_code, answer.json()) for answer in answers} == {(200, 1)}
    assert len({answer.headers["location"] for answer in answers}) == 1
    again = await call(api, app_id, "note", body, **keyed)
    assert (again.json(), again.headers["idempotency-replayed"]) == (1, "true")
    assert len(Path(path).read_text().splitlines()) == 1


async def test_another_body_under_the_same_key_is_a_conflict(api: Api, app_id: str) -> None:
    keyed = {"Idempotency-Key": ids.new("key")}
    assert (await call(api, app_id, "square", {"args": [2]}, **keyed)).json() == 4
    other = await call(api, app_id, "square", {"args": [3]}, **keyed)
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")


async def test_a_key_is_of_one_function(api: Api, app_id: str) -> None:
    keyed = {"Idempotency-Key": ids.new("key")}
    assert (await call(api, app_id, "square", {"args": [2]}, **keyed)).json() == 4
    assert (await call(api, app_id, "echo", {"args": [2]}, **keyed)).json()["args"] == [2]


async def test_a_failure_is_stored_under_its_key_too(api: Api, app_id: str) -> None:
    keyed = {"Idempotency-Key": ids.new("key")}
    answers = [await call(api, app_id, "fail", {}, **keyed) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [424, 424]
    assert answers[0].headers["location"] == answers[1].headers["location"]


@pytest.mark.parametrize("crashed_after", ["claim", "queue"])
async def test_a_gateway_that_dies_before_the_record_is_stored_leaves_one_call(
    api: Api, app_id: str, stack: RunningStack, tmp_path: Path, crashed_after: str
) -> None:
    """What a dead replica has stored is put there as it would have; then the client tries again."""
    key, body = ids.new("key"), b'{"args": ["%s"]}' % str(tmp_path / "notes").encode()
    info = stack.info
    bus = await connect(info.server_url, info.token_id, info.token_secret, timeout=60)
    workspace = ids.workspace_of_token(info.token_id)
    asked = coding.encode(GetApp(app_id=app_id))
    answer = await bus.request(subjects.registry(workspace, "get_app"), asked, timeout=60)
    details = coding.decode(AppDetails, answer)
    handle, made = details.handles["note"], ids.new(ids.CALL)
    digest = hashlib.sha256(b"0\0" + body).hexdigest()
    claim = Claim(digest, made, handle.pool, handle.prefix, 1, 0.0)
    place = subjects.claim(workspace, decisions.claim_key(workspace, handle.function_id, key))
    await bus.store(place, coding.encode(claim), msg_id=key)
    if crashed_after == "queue":
        arguments = Payload(Format.JSON, b'[["%s"],{}]' % str(tmp_path / "notes").encode())
        chunk = Chunk(made, [0], 0, "", [arguments], 0.0)
        queue = subjects.inputs(handle.prefix, made, 0, 0)
        await bus.store(queue, coding.encode(chunk), msg_id=subjects.input_key(made, 0, 0))
    await bus.close()
    headers = {"content-type": "application/json", "Idempotency-Key": key}
    url = f"/apps/{app_id}/functions/note/calls"
    answers = [await api.post(url, content=body, headers=headers, params={"wait": 30}) for _ in range(2)]
    assert [answer.json() for answer in answers] == [1, 1]
    assert {answer.headers["location"] for answer in answers} == {f"/api/v1/calls/{made}"}
