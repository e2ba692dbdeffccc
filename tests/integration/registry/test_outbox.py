"""What was decided reaches NATS, whatever dies in between."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from tidemill._bus.protocol import Disconnected, RequestFailed
from tidemill._wire.specs import FunctionSpec
from tidemill_common import streams
from tidemill_registry.outbox import LOCK

Spec = Callable[..., FunctionSpec]


@pytest.fixture
async def sql(database: Any) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(database.url.replace("+asyncpg", ""))
    yield connection
    await connection.close()


@pytest.fixture
async def held(sql: Any) -> AsyncIterator[Callable[[], Any]]:
    """Hold the publishers' lock: decisions are committed, and nobody can tell them."""
    await sql.execute(f"SELECT pg_advisory_lock({LOCK})")
    released = False

    async def release() -> None:
        nonlocal released
        released = True
        await sql.execute(f"SELECT pg_advisory_unlock({LOCK})")

    yield release
    if not released:
        await release()


async def committed(sql: Any) -> int:
    return int(await sql.fetchval("SELECT count(*) FROM outbox"))


async def test_a_registry_killed_between_commit_and_publish_loses_nothing(
    client: Any, start_registry: Any, spec: Spec, sql: Any, held: Any, until: Any
) -> None:
    registry = await start_registry()
    app_id = await client.create()
    asked = asyncio.create_task(client.publish(app_id, spec("f"), spec("g")))
    await until(lambda: committed(sql))
    await registry.kill()
    asked.cancel()
    assert await client.pools() == {}
    await held()
    await start_registry()
    await until(lambda: drained(sql))
    assert {pool.spec.name for pool in (await client.pools()).values()} == {"f", "g"}
    repeated = await client.publish(app_id, spec("f"), spec("g"))
    assert {handle.pool for handle in repeated.values()} == set(await client.pools())


async def drained(sql: Any) -> bool:
    return await committed(sql) == 0


async def test_another_replica_tells_what_a_killed_one_decided(
    client: Any, start_registry: Any, spec: Spec, sql: Any, held: Any, until: Any
) -> None:
    first = await start_registry()
    app_id = await client.create()
    asked = asyncio.create_task(client.publish(app_id, spec("f")))
    await until(lambda: committed(sql))
    await start_registry()
    await first.kill()
    asked.cancel()
    await held()
    await until(client.pools)


async def test_publishing_while_nats_is_away_is_told_when_it_is_back(
    client: Any, start_registry: Any, spec: Spec, sql: Any, broker: Any, until: Any
) -> None:
    registry = await start_registry()
    app_id = await client.create()
    handles = await client.publish(app_id, spec("f"))
    broker.kill()
    await sql.execute(
        "INSERT INTO outbox (kind, target, key) VALUES ('delete', $1, $2)", streams.POOLS, handles["f"].pool
    )
    await until(lambda: any(record["msg"] == "the outbox waits" for record in registry.records()))
    assert await committed(sql) == 1
    await broker.start()
    await until(lambda: drained(sql))

    async def repaired() -> bool:
        with suppress(Disconnected):  # the registry may be back before this client
            return await client.pool(handles["f"].pool) is not None
        return False

    await until(repaired)  # the reconciler puts back what the tables still want


@pytest.mark.long
async def test_a_request_whose_pools_cannot_be_told_is_refused_and_can_be_repeated(
    client: Any, start_registry: Any, spec: Spec, held: Any
) -> None:
    await start_registry()
    app_id = await client.create()
    with pytest.raises(RequestFailed) as caught:
        await client.publish(app_id, spec("f"))
    assert caught.value.code == "service"
    await held()
    handles = await client.publish(app_id, spec("f"))
    assert set(await client.pools()) == {handles["f"].pool}


async def test_the_bucket_is_repaired_at_the_start(
    client: Any, start_registry: Any, spec: Spec, until: Any
) -> None:
    registry = await start_registry()
    app_id = await client.create()
    handles = await client.publish(app_id, spec("f"), spec("g"), spec("h"))
    before = await client.pools()
    await registry.kill()
    bucket = client.bus.bucket(streams.POOLS)
    await bucket.put("po-stray", b"whatever")
    await bucket.put(handles["f"].pool, b"broken")
    await bucket.delete(handles["g"].pool)
    siblings = client.bus.bucket(streams.HANDLES)
    prepared = streams.handles_key(app_id, 2)  # a version whose containers start before it serves
    await siblings.put(prepared, b"whatever")
    await siblings.put("ap-stray.1", b"whatever")
    await siblings.delete(streams.handles_key(app_id, 1))
    registry = await start_registry()

    async def whole() -> bool:
        items = await bucket.items()
        return "po-stray" not in items and items.get(handles["f"].pool) != b"broken" and len(items) == 3

    await until(whole)
    assert await client.pools() == before

    async def kept() -> bool:
        return set(await siblings.items()) == {streams.handles_key(app_id, 1), prepared}

    await until(kept)
    assert await client.siblings(before[handles["f"].pool]) == handles

    async def counted() -> bool:
        _, text = await registry.get("/metrics")
        return "tidemill_registry_repairs_total 5.0" in text

    await until(counted)  # with the end of the pass that repaired them


async def test_a_stopped_app_never_comes_back_whatever_the_order_of_replicas(
    client: Any, start_registry: Any, spec: Spec, until: Any, sql: Any
) -> None:
    await asyncio.gather(start_registry(), start_registry())

    async def life(number: int) -> None:
        app_id = await client.create()
        await client.publish(app_id, spec("f"))
        await asyncio.gather(
            client.publish(app_id, spec("f", timeout=float(number + 1))), client.heartbeat(app_id)
        )
        await client.stop(app_id)

    await asyncio.gather(*(life(number) for number in range(20)))
    await until(lambda: drained(sql))
    assert await client.pools() == {}
