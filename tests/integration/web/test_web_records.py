"""What is recorded of web requests: how many succeeded, and those that somebody may ask for."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from waiting import until
from web_site import Site

Client = httpx.AsyncClient
QUICK = 10


@pytest.fixture
async def api(site: Site) -> AsyncIterator[Client]:
    """A client of the REST API."""
    info = site.stack.info
    auth = (info.token_id, info.token_secret)
    async with Client(base_url=f"{site.gateway}/api/v1", auth=auth, timeout=60.0) as client:
        yield client


async def test_requests_are_counted_and_those_that_can_be_asked_for_are_recorded(
    site: Site, client: Client, api: Client
) -> None:
    since = datetime.now(UTC).isoformat()
    for _ in range(QUICK):
        assert (await client.get(site.url("web"))).status_code == 200
    known = (await client.get(site.url("web", "/scope"))).json()["call"]
    child = (await client.get(site.url("web", "/leads"))).json()
    assert (await client.get(site.url("web", "/says"))).status_code == 200
    assert (await client.get(site.url("web", "/raises"))).status_code == 500

    async def all_there() -> bool:
        answer = (await api.get("/requests", params={"function": "web"})).json()
        return bool(answer["succeeded"] >= QUICK + 4)

    await until(all_there)
    found = (await api.get(f"/calls/{known}")).json()
    assert (found["status"], found["counts"]) == ("success", {"success": 1})
    graph = (await api.get(f"/calls/{child}/graph")).json()
    assert {each["function"] for each in _calls(graph)} == {"web", "tell_url"}

    async def recorded() -> list[Any] | None:
        calls = (await api.get("/calls", params={"function": "web", "since": since})).json()["items"]
        return calls if len(calls) >= 4 else None  # asked for its id, led to another, wrote, failed

    await until(recorded)


def _calls(graph: dict[str, Any]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = graph["calls"]
    return calls
