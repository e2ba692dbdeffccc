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
    since, before = datetime.now(UTC).isoformat(), await succeeded(api)
    for _ in range(QUICK):
        assert (await client.get(site.url("web"))).status_code == 200
    known = (await client.get(site.url("web", "/scope"))).json()["call"]
    child = (await client.get(site.url("web", "/leads"))).json()
    assert (await client.get(site.url("web", "/says"))).status_code == 200
    assert (await client.get(site.url("web", "/raises"))).status_code == 500

    async def all_there() -> bool:
        return await succeeded(api) >= before + QUICK + 3

    async def known_as_successful() -> bool:
        found = (await api.get(f"/calls/{known}")).json()
        return (found.get("status"), found.get("counts")) == ("success", {"success": 1})

    async def led_to() -> bool:
        graph = (await api.get(f"/calls/{child}/graph")).json()
        return {each["function"] for each in _calls(graph)} == {"web", "tell_url"}

    for condition in (all_there, known_as_successful, led_to):
        await until(condition)

    async def recorded() -> list[Any] | None:
        calls = (await api.get("/calls", params={"function": "web", "since": since})).json()["items"]
        return calls if len(calls) >= 4 else None  # asked for its id, led to another, wrote, failed

    await until(recorded)


def _calls(graph: dict[str, Any]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = graph.get("calls", [])
    return calls


async def succeeded(api: Client) -> int:
    """Return how many requests succeeded, as far as that is recorded."""
    return int((await api.get("/requests", params={"function": "web"})).json()["succeeded"])
