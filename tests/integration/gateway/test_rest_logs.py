"""Output and what was given up, over HTTP."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
from running_stacks import RunningStack
from waiting import until

Api = httpx.AsyncClient
APP = "rest-program"


async def say(api: Api, *words: str) -> str:
    """Have words printed; return the call."""
    answer = await api.post(f"/apps/{APP}/functions/say/calls?wait=30", json={"args": words})
    assert answer.status_code == 200, answer.text
    return answer.headers["location"].rpartition("/")[2]


async def lines(api: Api, path: str, **query: Any) -> list[str]:
    answer = await api.get(f"{path}/logs", params=query)
    assert answer.status_code == 200, answer.text
    return [line["text"].strip() for line in answer.json()["items"]]


async def test_output_is_read_by_app_function_call_and_container(api: Api, app_id: str) -> None:
    call = await say(api, "one", "two", "three")
    items = await until(lambda: _printed(api, call, 3), what="for the output")
    line = items[0]
    assert (line["text"], line["function"], line["call"], line["app"]) == ("one\n", "say", call, app_id)
    assert [item["text"] for item in items] == ["one\n", "two\n", "three\n"]
    container = line["container"]
    assert await lines(api, f"/containers/{container}", tail=1, search="t") == ["three"]
    assert await lines(api, f"/apps/{APP}/functions/say", tail=2) == ["two", "three"]
    begin = (datetime.fromisoformat(line["time"]) - timedelta(milliseconds=1)).isoformat()
    assert await lines(api, f"/apps/{APP}", since=begin, search="t", source="stdout") == ["two", "three"]
    assert await lines(api, f"/calls/{call}", since=begin, limit=1) == ["one"]
    assert await lines(api, f"/calls/{call}", until=begin) == []
    over = await api.get(f"/apps/{APP}/logs", params={"since": begin, "limit": 1, "search": "t"})
    assert over.json()["truncated"]


async def _printed(api: Api, call: str, count: int) -> list[dict[str, Any]] | None:
    items: list[dict[str, Any]] = (await api.get(f"/calls/{call}/logs")).json()["items"]
    return items if len(items) == count else None


async def test_what_cannot_be_read_is_told(api: Api, app_id: str) -> None:
    for path in (
        "/apps/nothing",
        f"/apps/{app_id}/functions/nothing",
        "/calls/fc-nothing",
        "/containers/co-1",
    ):
        answer = await api.get(f"{path}/logs")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


async def test_output_is_followed_as_it_is_printed(api: Api, app_id: str) -> None:
    path = f"/apps/{app_id}/functions/say/logs/stream"
    async with api.stream("GET", path) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        received = answer.aiter_lines()
        assert await anext(received) == ""  # it is heard
        await say(api, "followed")
        line = json.loads(await _next(received))
        assert (line["text"], line["function"]) == ("followed\n", "say")


async def test_who_lost_a_stream_of_events_goes_on_where_it_ended(api: Api, app_id: str) -> None:
    path, wanted = f"/apps/{app_id}/functions/say/logs/stream", {"Accept": "text/event-stream"}
    async with api.stream("GET", path, headers=wanted) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        received = answer.aiter_lines()
        assert await anext(received) == ":"
        await say(api, "before")
        assert await _event(received, "before")
        await say(api, "seen")
        last = await _event(received, "seen")
    await say(api, "missed")
    again = wanted | {"Last-Event-ID": last}
    async with api.stream("GET", path, headers=again) as answer:
        assert await _event(answer.aiter_lines(), "missed")


async def _next(received: AsyncIterator[str]) -> str:
    async for line in received:
        if line:
            return line
    raise AssertionError("the stream ended")


async def _event(received: AsyncIterator[str], word: str) -> str:
    """Return the id of the event with a word."""
    last = ""
    async for line in received:
        if line.startswith("id: "):
            last = line.removeprefix("id: ")
        if line.startswith("data: ") and json.loads(line[6:])["text"] == f"{word}\n":
            return last
    raise AssertionError("the stream ended")


async def test_a_stream_ends_with_its_app(api: Api, stack: RunningStack) -> None:
    program = "import tidemill\napp = tidemill.App()\n@app.function()\ndef f() -> None: ...\n"
    file = stack.home / "ends.py"
    file.write_text(program)
    assert stack.cli("deploy", str(file), "--name", "ends").returncode == 0
    async with api.stream("GET", "/apps/ends/logs/stream") as answer:
        received = answer.aiter_lines()
        await anext(received)
        assert (await api.delete("/apps/ends")).status_code == 204
        assert [line async for line in received if line] == []


async def test_a_container_is_followed_until_it_has_ended(api: Api, app_id: str) -> None:
    call = await say(api, "from some container")
    (printed,) = await until(lambda: _printed(api, call, 1), what="for the output")
    container = printed["container"]

    async def is_reported() -> bool:
        running = (await api.get("/containers", params={"app": app_id})).json()["items"]
        return container in {each["id"] for each in running}

    await until(is_reported, what="for the report of the container")
    path = f"/containers/{container}/logs/stream"
    async with api.stream("GET", path, params={"tail": 1}) as answer:
        received = answer.aiter_lines()
        line = json.loads(await _next(received))
        assert (line["container"], line["function"], line["app"]) == (container, "say", app_id)
        assert (await api.delete(f"/containers/{container}")).status_code == 204
        rest = [json.loads(line) async for line in received if line]
    assert {each["container"] for each in rest} <= {container}
    async with api.stream("GET", path, params={"tail": 1}) as answer:  # of one that has ended
        assert len([line async for line in answer.aiter_lines() if line]) == 1


async def test_what_was_given_up_is_shown_and_replayed_once(api: Api, app_id: str) -> None:
    failed = await api.post(f"/apps/{app_id}/functions/give_up/calls?wait=30", json={"args": ["dead"]})
    call = failed.headers["location"].rpartition("/")[2]

    async def find() -> dict[str, Any] | None:
        listed = await api.get("/dead-letters", params={"app": app_id, "function": "give_up"})
        assert listed.status_code == 200, listed.text
        return next((letter for letter in listed.json()["items"] if letter["call"] == call), None)

    letter = await until(find, what="for the dead letter")
    assert (letter["index"], letter["readable"], letter["replayed_as"]) == (0, True, "")
    path = f"/dead-letters/{letter['id']}"
    assert "ValueError: not dead" in (await api.get(path)).json()["traceback"]
    first, second = [(await api.post(f"{path}/replay")).json() for _ in range(2)]
    assert (first["again"], second) == (False, first | {"again": True})

    async def is_recorded() -> bool:
        answer = await api.get(first["url"].removeprefix("/api/v1"))
        return answer.status_code == 200 and answer.json()["function"] == "give_up"

    await until(is_recorded, what="for the record of the replay")
    assert (await api.get("/dead-letters/in-1-0")).status_code == 404
    assert (await api.get("/dead-letters?cursor=ab")).status_code == 404
    page = await api.get("/dead-letters?limit=1")
    if "next" in page.links:
        following = page.links["next"]["url"].removeprefix("/api/v1")
        assert (await api.get(following)).status_code == 200
