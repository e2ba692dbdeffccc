"""What the registry keeps, over HTTP: apps and their versions, secrets, environments, tokens, calls."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_stacks import RunningStack

from tidemill._wire import ids

Api = httpx.AsyncClient
PROGRAM = Path(__file__).with_name("any_program.py")


def versioned(number: int) -> str:
    return f"import tidemill\napp = tidemill.App()\n@app.function()\ndef f() -> int:\n    return {number}\n"


@pytest.fixture
async def deployed(api: Api, stack: RunningStack) -> AsyncIterator[str]:
    """The name of a deployed app, which is gone afterwards."""
    name = ids.new("app")
    done = stack.cli("deploy", str(PROGRAM), "--name", name)
    assert done.returncode == 0, done.stderr
    yield name
    await api.delete(f"/apps/{name}")


async def test_apps_are_found_by_name_state_and_tags(api: Api, deployed: str) -> None:
    assert (
        await api.patch(f"/apps/{deployed}", json={"tags": {"team": "a", "tier": "1"}})
    ).status_code == 200

    async def names(**params: Any) -> set[str]:
        return {app["name"] for app in (await api.get("/apps", params=params)).json()["items"]}

    assert await names(name=deployed) == {deployed}
    assert deployed in await names(tag=["team=a", "tier=1"])
    assert deployed not in await names(tag=["team=a", "tier=2"])
    assert deployed in await names(state="deployed", environment="main")
    assert deployed not in await names(state="stopped")


async def test_a_list_leads_on_to_its_next_page(api: Api, deployed: str, app_id: str) -> None:
    found, path = [], "/apps?limit=1"
    while path:
        answer = await api.get(path)
        found += [app["id"] for app in answer.json()["items"]]
        path = answer.links["next"]["url"].removeprefix("/api/v1") if "next" in answer.links else ""
    assert len(found) == len(set(found)) >= 2
    assert (await api.get("/apps?cursor=AAAA")).status_code == 404


async def test_a_change_is_refused_when_somebody_else_made_one(api: Api, deployed: str) -> None:
    read = await api.get(f"/apps/{deployed}")
    known = {"If-Match": read.headers["etag"]}
    first = await api.patch(f"/apps/{deployed}", json={"tags": {"a": "1"}}, headers=known)
    assert (first.status_code, first.json()["tags"]) == (200, {"a": "1"})
    second = await api.patch(f"/apps/{deployed}", json={"tags": {"a": "2"}}, headers=known)
    assert (second.status_code, second.json()["code"]) == (412, "precondition_failed")
    known = {"If-Match": first.headers["etag"]}
    third = await api.patch(f"/apps/{deployed}", json={"tags": {"a": None, "b": "2"}}, headers=known)
    assert third.json()["tags"] == {"b": "2"}


async def test_of_changes_at_the_same_moment_none_is_lost(api: Api, deployed: str) -> None:
    changes = [{"tags": {f"tag-{number}": "1"}} for number in range(3)]
    answers = await asyncio.gather(*(api.patch(f"/apps/{deployed}", json=change) for change in changes))
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    read = await api.get(f"/apps/{deployed}")
    assert set(read.json()["tags"]) >= {"tag-0", "tag-1", "tag-2"}
    known = {"If-Match": read.headers["etag"]}
    answers = await asyncio.gather(*(api.post(f"/apps/{deployed}/rollover", headers=known) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412]


async def test_versions_are_listed_rolled_over_and_rolled_back(
    api: Api, stack: RunningStack, tmp_path: Path
) -> None:
    name, program = ids.new("app"), tmp_path / "rolled.py"
    for number in (1, 2):
        program.write_text(versioned(number))
        assert stack.cli("deploy", str(program), "--name", name).returncode == 0
    back = await api.post(f"/apps/{name}/rollback", json={"version": 1, "strategy": "recreate"})
    assert (back.status_code, back.json()["version"], back.json()["functions"]) == (200, 3, ["f"])
    assert (await api.post(f"/apps/{name}/functions/f/calls?wait=30", json={})).json() == 1
    other = (await api.post("/tokens", json={"name": "for the build"})).json()
    by_other = {"Authorization": f"Bearer {other['id']}:{other['secret']}"}
    over = await api.post(f"/apps/{name}/rollover", json={}, headers=by_other)
    assert over.json()["version"] == 4
    versions = (await api.get(f"/apps/{name}/deployments")).json()["items"]
    assert [version["version"] for version in versions] == [4, 3, 2, 1]
    assert [version["current"] for version in versions] == [True, False, False, False]
    assert versions[1]["rolled_back_to"] == 1
    assert [version["deployed_by"] for version in versions] == ["for the build", "first", "first", "first"]
    assert (await api.get(f"/apps/{name}")).json()["created_by"] == "first"
    app_id = over.json()["app_id"]
    assert (await api.delete(f"/apps/{name}", headers=by_other)).status_code == 204
    stopped = (await api.get(f"/apps/{app_id}")).json()
    assert (stopped["state"], stopped["created_by"], stopped["stopped_by"]) == (
        "stopped",
        "first",
        "for the build",
    )


async def test_a_new_version_is_called_as_soon_as_it_is_deployed(
    api: Api, stack: RunningStack, tmp_path: Path
) -> None:
    name, program = ids.new("app"), tmp_path / "versioned.py"
    for number in range(3):
        program.write_text(versioned(number))
        assert stack.cli("deploy", str(program), "--name", name).returncode == 0
        answer = await api.post(f"/apps/{name}/functions/f/calls?wait=30", json={})
        assert answer.json() == number
    pinned = await api.post(f"/apps/{name}/functions/f/calls?wait=30&version=1", json={})
    assert pinned.json() == 0
    await api.delete(f"/apps/{name}")
    assert (await api.post(f"/apps/{name}/functions/f/calls", json={})).status_code == 404


async def test_functions_are_shown_with_what_they_ask_for(api: Api, deployed: str) -> None:
    (function,) = (await api.get("/functions", params={"app": deployed})).json()["items"]
    assert (function["name"], function["app_name"], function["version"]) == ("anything", deployed, 1)


async def test_secrets_are_written_and_never_shown(api: Api) -> None:
    name = ids.new("secret")
    hidden = "hidden-value"
    made = await api.put(f"/secrets/{name}", json={"values": {"KEY": hidden}}, headers={"If-None-Match": "*"})
    assert (made.status_code, made.json()["keys"]) == (200, ["KEY"])
    again = await api.put(f"/secrets/{name}", json={"values": {}}, headers={"If-None-Match": "*"})
    assert again.status_code == 409
    merged = await api.put(f"/secrets/{name}", json={"values": {"OTHER": hidden}, "merge": True})
    assert merged.json()["keys"] == ["KEY", "OTHER"]
    assert (merged.json()["created_by"], merged.json()["updated_by"]) == ("first", "first")
    answers = [made, merged, await api.get("/secrets"), await api.get(f"/secrets/{name}")]
    assert all(hidden not in answer.text for answer in answers)
    assert (await api.delete(f"/secrets/{name}")).status_code == 204
    assert (await api.get(f"/secrets/{name}")).status_code == 404


async def test_environments_are_made_renamed_and_deleted(api: Api) -> None:
    name = ids.new("env")[:20]
    made = await api.post("/environments", json={"name": name, "web_suffix": name[-12:]})
    assert (made.status_code, made.json()["name"]) == (201, name)
    assert (await api.post("/environments", json={"name": name})).status_code == 409
    assert (await api.patch(f"/environments/{name}", json={"name": f"{name}-b"})).status_code == 200
    assert f"{name}-b" in {each["name"] for each in (await api.get("/environments")).json()["items"]}
    assert (await api.delete(f"/environments/{name}-b")).status_code == 204


async def test_a_revoked_token_opens_nothing_after_some_seconds(api: Api, until: Any) -> None:
    made = (await api.post("/tokens", json={"name": "for a while"})).json()
    async with httpx.AsyncClient(
        base_url=api.base_url, auth=(made["id"], made["secret"]), timeout=60.0
    ) as other:
        assert (await other.get("/workers")).status_code == 200
        assert (await api.delete(f"/tokens/{made['id']}")).status_code == 204

        async def refused() -> bool:
            return (await other.get("/workers")).status_code == 401

        await until(refused)
    listed = (await api.get("/tokens", params={"include_revoked": True})).json()["items"]
    shown = next(token for token in listed if token["id"] == made["id"])
    assert shown["revoked"]
    assert (shown["created_by"], shown["revoked_by"]) == ("first", "first")
    assert "secret" not in shown


async def test_calls_are_listed_with_what_became_of_them(api: Api, deployed: str, until: Any) -> None:
    answer = await api.post(f"/apps/{deployed}/functions/anything/calls?wait=30", json={"inputs": [{}, {}]})
    path = answer.headers["location"].removeprefix("/api/v1")

    async def finished() -> Any:
        found = (await api.get(path)).json()
        return found if found.get("status") == "success" else None

    call = await until(finished)
    assert call["num_inputs"] == 2
    assert [each["status"] for each in call["inputs"]] == ["success", "success"]
    app = (await api.get(f"/apps/{deployed}")).json()["id"]
    listed = (await api.get("/calls", params={"app": app})).json()["items"]
    assert [each["id"] for each in listed] == [call["id"]]
    graph = (await api.get(f"{path}/graph")).json()
    assert graph["root"] == call["id"]
    assert len(graph["inputs"]) == 2


async def test_schedules_are_listed(api: Api, deployed: str, tmp_path: Path, stack: RunningStack) -> None:
    asked = {"app": deployed}
    assert (await api.get("/schedules", params=asked)).json() == {"items": [], "next_cursor": None}
    program = tmp_path / "scheduled.py"
    yearly = '(schedule=tidemill.Cron("0 0 29 2 *"))'
    program.write_text(versioned(1).replace("function()", f"function{yearly}"))
    assert stack.cli("deploy", str(program), "--name", deployed).returncode == 0
    (listed,) = (await api.get("/schedules", params=asked)).json()["items"]
    assert (listed["function"], listed["app_name"]) == ("f", deployed)
    assert "0 0 29 2 *" in listed["schedule"]
