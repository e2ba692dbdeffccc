"""The registry's process: what it tells about itself, and what becomes of requests when something ends."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest
from refusals import refused

from tidemill._bus.protocol import NoResponder
from tidemill._wire.specs import FunctionSpec

Spec = Callable[..., FunctionSpec]


@pytest.fixture(autouse=True)
async def registry(start_registry: Any, client: Any) -> Any:
    return await start_registry()


async def test_it_says_whether_it_is_ready(registry: Any, database: Any, until: Any) -> None:
    async def says(status: int, word: str) -> None:
        async def looked() -> bool:  # again and again: a check that takes long is answered otherwise
            told, reason = await registry.get("/readyz")
            return told == status and word in reason

        await until(looked, what=f"for {status}, {word}")

    await says(200, "ready")
    database.kill()
    await says(503, "database")
    assert (await registry.get("/healthz"))[0] == 200
    await database.start()
    await says(200, "ready")


async def test_a_restarted_database_costs_nobody_a_request(client: Any, spec: Spec, database: Any) -> None:
    app_id = await client.create()
    await database.restart()
    assert "f" in await client.publish(app_id, spec("f"))


async def test_without_its_database_it_refuses_and_says_so(client: Any, database: Any) -> None:
    database.kill()
    failure = await refused(client.create())
    assert failure.code == "service"
    assert "database" in failure.message
    await database.start()
    assert await client.create()


async def test_requests_are_counted(client: Any, registry: Any) -> None:
    await client.create()
    await refused(client.stop("ap-none"))
    _, text = await registry.get("/metrics")
    assert 'tidemill_requests_total{code="ok",verb="create_app"} 1.0' in text
    assert 'tidemill_requests_total{code="not_found",verb="stop_app"} 1.0' in text
    assert 'tidemill_service_info{service="registry"' in text


async def test_a_terminated_registry_answers_what_it_took_and_ends_in_order(
    client: Any, registry: Any, spec: Spec
) -> None:
    app_id = await client.create()
    asked = asyncio.create_task(client.publish(app_id, *(spec(f"f{number}") for number in range(50))))
    await asyncio.sleep(0)  # the request is written before the flush
    await client.bus.flush()
    registry.send(signal.SIGTERM)
    assert len(await asked) == 50
    assert await registry.ended() == 0
    with pytest.raises(NoResponder):
        await client.create()
