"""A registry that is killed in the middle of a deployment leaves a whole version or none."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from tidemill._wire.apps import AppDetails, GetApp
from tidemill._wire.deploying import AppDeployed, DeployApp, DeploymentList, ListDeployments
from tidemill._wire.secrets import PutAppSecret, SecretInfo
from tidemill._wire.specs import Autoscaling, FunctionSpec
from tidemill_registry.cipher import new_key
from tidemill_registry.outbox import LOCK

Spec = Callable[..., FunctionSpec]

# Tables that a deployment writes to, in this order: it can be stopped at each.
WRITTEN = ("apps", "pools", "pool_secrets", "deployment_functions", "outbox")


@pytest.fixture
async def sql(database: Any) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(database.url.replace("+asyncpg", ""))
    yield connection
    await connection.close()


_REGISTRIES = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidemill-registry' AND "


async def is_at_rest(sql: Any) -> bool:
    """Return whether no registry is in a transaction."""
    return not await sql.fetchval(f"{_REGISTRIES} state <> 'idle'")


async def is_held_up(sql: Any) -> bool:
    """Return whether a registry waits for a lock in order to write (the sweep deletes, it does not count)."""
    return bool(await sql.fetchval(f"{_REGISTRIES} wait_event_type = 'Lock' AND query NOT LIKE 'DELETE%'"))


async def deploy(client: Any, *functions: FunctionSpec) -> AppDeployed:
    answer: AppDeployed = await client.ask("deploy_app", DeployApp("app", functions), AppDeployed)
    return answer


async def check_whole(client: Any, expected: AppDeployed) -> None:
    """Check that tables and bucket tell of this version, all of it and nothing else."""
    details = await client.ask("get_app", GetApp(name="app"), AppDetails)
    assert (details.app.version, details.handles) == (expected.version, expected.handles)
    listed = await client.ask("list_deployments", ListDeployments("app"), DeploymentList)
    versions = [one.version for one in listed.deployments]
    assert versions == list(range(expected.version, 0, -1))
    serving = {key for key, pool in (await client.pools()).items() if not pool.superseded}
    assert serving == {handle.pool for handle in expected.handles.values()}


@pytest.mark.long
async def test_a_deployment_that_was_killed_at_any_step_has_not_happened(
    client: Any, start_registry: Any, spec: Spec, sql: Any, until: Any
) -> None:
    key = new_key()
    registry = await start_registry(TIDEMILL_SECRETS_KEY=key)
    secret = await client.ask("put_app_secret", PutAppSecret({"A": "1"}), SecretInfo)
    present = await deploy(client, spec("f"), spec("gone", autoscaling=Autoscaling(min_containers=1)))
    for number, table in enumerate(WRITTEN):
        changed = (spec("f", timeout=number + 1.0, secrets=(secret.secret_id,)), spec(f"new-{number}"))
        await until(lambda: is_at_rest(sql))
        lock = sql.transaction()
        await lock.start()
        await sql.execute(f"LOCK TABLE {table} IN SHARE MODE")
        asked = asyncio.create_task(deploy(client, *changed))
        await until(lambda: is_held_up(sql))
        await registry.kill()
        await lock.rollback()
        asked.cancel()
        registry = await start_registry(TIDEMILL_SECRETS_KEY=key)
        await until(lambda: is_at_rest(sql))
        await check_whole(client, present)
        present = await deploy(client, *changed)
        assert present.version == number + 2
        await check_whole(client, present)


async def test_a_deployment_that_was_killed_after_its_commit_has_happened(
    client: Any, start_registry: Any, spec: Spec, sql: Any, until: Any
) -> None:
    registry = await start_registry()
    await deploy(client, spec("f"), spec("gone"))
    await until(lambda: is_at_rest(sql))
    await sql.execute(f"SELECT pg_advisory_lock({LOCK})")
    asked = asyncio.create_task(deploy(client, spec("f", timeout=5.0)))
    await until(lambda: sql.fetchval("SELECT count(*) FROM outbox"))
    await registry.kill()
    asked.cancel()
    await sql.execute(f"SELECT pg_advisory_unlock({LOCK})")
    await start_registry()
    again = await deploy(client, spec("f", timeout=5.0))
    assert (again.skipped, again.version) == (True, 2)
    await check_whole(client, again)
