"""The registry as a NATS micro service: who knows the protocol finds it, and learns how to ask it."""

import asyncio
import json
from typing import Any

import msgpack
import nats
import pytest

from tidemill._wire import subjects

SERVICE = "tidemill-registry"


@pytest.fixture
async def raw(broker: Any) -> Any:
    """A plain NATS connection, without anything of ours."""
    connection = await nats.connect(broker.url, user="service", password=broker.settings.passwords["service"])
    yield connection
    await connection.close()


async def ask_all(raw: Any, subject: str, answers: int) -> list[dict[str, Any]]:
    inbox = raw.new_inbox()
    subscription = await raw.subscribe(inbox)
    await raw.publish(subject, b"", reply=inbox)
    return [json.loads((await subscription.next_msg(timeout=60)).data) for _ in range(answers)]


async def test_every_replica_answers_a_ping(raw: Any, start_registry: Any) -> None:
    await asyncio.gather(start_registry(), start_registry())
    pongs = await ask_all(raw, f"$SRV.PING.{SERVICE}", 2)
    assert len({pong["id"] for pong in pongs}) == 2
    for pong in pongs:
        assert pong["type"] == "io.nats.micro.v1.ping_response"
        assert pong["name"] == SERVICE
        one = await raw.request(f"$SRV.PING.{SERVICE}.{pong['id']}", b"", timeout=60)
        assert json.loads(one.data)["id"] == pong["id"]


async def test_its_endpoints_are_told_with_the_schemas_of_what_they_take_and_give(
    raw: Any, start_registry: Any
) -> None:
    await start_registry()
    info = (await ask_all(raw, f"$SRV.INFO.{SERVICE}", 1))[0]
    assert info["type"] == "io.nats.micro.v1.info_response"
    endpoints = {endpoint["name"]: endpoint for endpoint in info["endpoints"]}
    assert {"get_app", "list_apps", "get_function", "publish_functions"} <= set(endpoints)
    for endpoint in endpoints.values():
        assert endpoint["queue_group"]
        assert set(endpoint["metadata"]) == {"encoding", "request", "answer"}
    request = json.loads(endpoints["get_function"]["metadata"]["request"])
    assert {"app_name", "name", "environment"} <= set(request["$defs"]["GetFunction"]["properties"])
    deployed = json.loads(endpoints["deploy_app"]["metadata"]["answer"])
    assert {"app_id", "version", "skipped"} <= set(deployed["$defs"]["AppDeployed"]["properties"])
    answer = json.loads(endpoints["get_function"]["metadata"]["answer"])
    assert {"pool", "prefix"} <= set(answer["$defs"]["FunctionHandle"]["properties"])


async def test_its_statistics_count_requests_and_errors(raw: Any, start_registry: Any) -> None:
    await start_registry()
    subject = subjects.registry("main", "get_app")
    refusal = await raw.request(subject, msgpack.packb({"app_id": "ap-none"}), timeout=60)
    assert refusal.headers["Nats-Service-Error-Code"] == "not_found"
    assert msgpack.unpackb(refusal.data)["code"] == "not_found"
    stats = (await ask_all(raw, f"$SRV.STATS.{SERVICE}", 1))[0]
    assert stats["type"] == "io.nats.micro.v1.stats_response"
    counted = next(each for each in stats["endpoints"] if each["name"] == "get_app")
    assert (counted["num_requests"], counted["num_errors"]) == (1, 1)
    assert counted["last_error"].startswith("not_found")
    assert counted["average_processing_time"] > 0
