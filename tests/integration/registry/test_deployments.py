"""Apps that stay: their versions, over NATS."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from refusals import refused

from tidemill._wire import coding
from tidemill._wire.apps import AppCreated, AppDetails, GetApp
from tidemill._wire.control import AppEvent, Done, FunctionHandle, GetFunction
from tidemill._wire.deploying import (
    AppDeployed,
    DeployApp,
    DeploymentInfo,
    DeploymentList,
    GetTags,
    ListDeployments,
    LookupApp,
    RollbackApp,
    RolloverApp,
    SetTags,
    StopDeployed,
    Tags,
)
from tidemill._wire.specs import Autoscaling, FunctionSpec

Spec = Callable[..., FunctionSpec]


@pytest.fixture
def client(tenant: Any) -> Any:
    """Each test has a workspace of its own on a registry that they share."""
    return tenant


async def deploy(client: Any, *functions: FunctionSpec, name: str = "app", **fields: Any) -> AppDeployed:
    answer: AppDeployed = await client.ask("deploy_app", DeployApp(name, functions, **fields), AppDeployed)
    return answer


async def roll_back(client: Any, version: int | None = None, **fields: Any) -> AppDeployed:
    request = RollbackApp("app", version=version, **fields)
    answer: AppDeployed = await client.ask("rollback_app", request, AppDeployed)
    return answer


async def roll_over(client: Any, **fields: Any) -> AppDeployed:
    answer: AppDeployed = await client.ask("rollover_app", RolloverApp("app", **fields), AppDeployed)
    return answer


async def history(client: Any, app: str = "app", **fields: Any) -> tuple[DeploymentInfo, ...]:
    listed: DeploymentList = await client.ask(
        "list_deployments", ListDeployments(app, **fields), DeploymentList
    )
    return listed.deployments


async def stop(client: Any, app: str = "app", **fields: Any) -> None:
    await client.ask("stop_deployed", StopDeployed(app, **fields), Done)


# --- deploying


async def test_a_deployed_function_can_be_called_when_the_deployment_is_answered(
    client: Any, spec: Spec
) -> None:
    deployed = await deploy(client, spec("f"), spec("g"))
    assert (deployed.version, deployed.skipped, deployed.removed) == (1, False, ())
    assert await client.function("app", "f") == deployed.handles["f"]
    pool = await client.pool(deployed.handles["f"].pool)
    assert pool.deployed
    assert await client.siblings(pool) == deployed.handles


async def test_the_same_code_and_options_are_skipped(client: Any, spec: Spec) -> None:
    first = await deploy(client, spec("f", env={"A": "1", "B": "2"}))
    again = await deploy(client, spec("f", env={"B": "2", "A": "1"}))
    assert again.skipped
    assert (again.app_id, again.version, again.handles) == (first.app_id, 1, first.handles)
    recreated = await deploy(client, spec("f", env={"A": "1", "B": "2"}), strategy="recreate")
    assert recreated.skipped
    assert len(await history(client)) == 1


@pytest.mark.parametrize("fields", [{"tag": "v2"}, {"tags": {"team": "b"}}])
async def test_another_tag_makes_a_version_of_the_same_pools(
    client: Any, spec: Spec, fields: dict[str, Any]
) -> None:
    first = await deploy(client, spec("f"), tag="v1", tags={"team": "a"})
    second = await deploy(client, spec("f"), **fields)
    assert (second.version, second.skipped) == (2, False)
    assert second.handles == first.handles
    third = await deploy(client, spec("f"), **fields)
    assert third.skipped


async def test_tags_that_are_not_given_stay(client: Any, spec: Spec) -> None:
    deployed = await deploy(client, spec("f"), tags={"team": "a"})
    await deploy(client, spec("f", timeout=5.0))
    assert (await client.ask("get_tags", GetTags(deployed.app_id), Tags)).tags == {"team": "a"}


async def test_a_function_that_vanished_from_the_code_disappears(client: Any, spec: Spec) -> None:
    first = await deploy(client, spec("f"), spec("old"))
    second = await deploy(client, spec("f"))
    assert second.removed == ("old",)
    assert set(second.handles) == {"f"}
    assert (await refused(client.function("app", "old"))).code == "not_found"
    assert (await client.function("app", "old", 1)).pool == first.handles["old"].pool
    assert (await client.pool(first.handles["old"].pool)).superseded
    details = await client.ask("get_app", GetApp(name="app"), AppDetails)
    assert set(details.handles) == {"f"}


async def test_a_name_can_be_used_again_for_another_type(client: Any, spec: Spec) -> None:
    first = await deploy(client, spec("thing"))
    await deploy(client, spec("other"))
    third = await deploy(client, spec("thing", is_generator=True, options={"class": True}))
    handle = await client.function("app", "thing")
    assert handle.is_generator
    assert handle.pool == third.handles["thing"].pool != first.handles["thing"].pool
    assert not (await client.function("app", "thing", 1)).is_generator


async def test_a_renamed_function_is_another_one_and_gets_its_name_back(client: Any, spec: Spec) -> None:
    first = (await deploy(client, spec("f"), spec("stays"))).handles
    renamed = await deploy(client, spec("g"), spec("stays"))
    assert renamed.removed == ("f",)
    assert renamed.handles["g"].function_id != first["f"].function_id
    assert renamed.handles["stays"] == first["stays"]
    assert (await refused(client.function("app", "f"))).code == "not_found"
    back = await deploy(client, spec("f"), spec("stays"))
    assert (back.version, back.removed, back.handles) == (3, ("g",), first)
    assert await client.function("app", "g", 2) == renamed.handles["g"]


async def test_the_history_tells_what_was_deployed(client: Any, spec: Spec) -> None:
    await deploy(client, spec("f"), spec("g"), tag="first", client_version="1.2.3")
    await deploy(client, spec("f"), strategy="recreate")
    await roll_back(client)
    third, second, first = await history(client)
    assert (first.version, first.tag, first.client_version, first.functions) == (
        1,
        "first",
        "1.2.3",
        ("f", "g"),
    )
    assert (second.strategy, second.functions, second.current) == ("recreate", ("f",), False)
    assert (third.version, third.rolled_back_to, third.functions, third.current) == (3, 1, ("f", "g"), True)
    assert first.created < second.created < third.created


async def test_an_app_tells_where_it_is_found_over_http(client: Any, spec: Spec) -> None:
    deployed = await deploy(client, spec("f"))
    assert deployed.url == f"https://mill.example/api/v1/apps/{deployed.app_id}"
    found = await client.ask("lookup_app", LookupApp("app"), AppCreated)
    assert found.url == deployed.url


async def test_the_history_comes_in_pages(client: Any, spec: Spec) -> None:
    for number in range(5):
        await deploy(client, spec("f", timeout=number + 1.0))
    versions: list[int] = []
    cursor = ""
    while True:
        request = ListDeployments("app", limit=2, cursor=cursor)
        page = await client.ask("list_deployments", request, DeploymentList)
        versions += [one.version for one in page.deployments]
        if not (cursor := page.cursor):
            break
    assert versions == [5, 4, 3, 2, 1]
    assert (await refused(history(client, cursor="no cursor"))).code == "invalid"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tag": "x" * 51}, "50 characters"),
        ({"strategy": "sudden"}, "not a strategy"),
        ({"name": "a b"}, "not a name"),
        ({"environment": "nowhere"}, "no environment"),
        ({"tags": {"k": "v\0"}}, "NUL"),
    ],
)
async def test_a_deployment_that_cannot_be_leaves_nothing_behind(
    client: Any, spec: Spec, fields: dict[str, Any], words: str
) -> None:
    failure = await refused(deploy(client, spec("f"), **fields))
    assert words in failure.message
    assert (await refused(history(client))).code == "not_found"
    assert await client.pools() == {}


async def test_deployments_at_the_same_moment_each_have_a_version_of_their_own(
    client: Any, start_replica: Any, spec: Spec
) -> None:
    await start_replica()  # requests go to either
    answers = await asyncio.gather(
        *(
            deploy(client, spec("f", timeout=number + 1.0), spec("g", timeout=number + 1.0))
            for number in range(10)
        )
    )
    assert sorted(answer.version for answer in answers) == list(range(1, 11))
    assert len({answer.app_id for answer in answers}) == 1
    newest = max(answers, key=lambda answer: answer.version)
    for name in ("f", "g"):
        assert await client.function("app", name) == newest.handles[name]
    pools = await client.pools()
    assert {key for key, pool in pools.items() if not pool.superseded} == {
        handle.pool for handle in newest.handles.values()
    }
    for answer in answers:  # none is a mixture of two
        timeouts = {pools[handle.pool].spec.timeout for handle in answer.handles.values()}
        assert len(timeouts) == 1
        for name, handle in answer.handles.items():
            assert (await client.function("app", name, answer.version)).pool == handle.pool


async def test_a_function_is_found_as_soon_as_its_pool_is(
    client: Any, spec: Spec, standing: Any, until: Any
) -> None:
    """Whoever asks between the commit and the news waits for the news."""
    import asyncpg

    from tidemill_registry.outbox import LOCK

    sql = await asyncpg.connect(standing.database.url.replace("+asyncpg", ""))
    await sql.execute(f"SELECT pg_advisory_lock({LOCK})")
    deploying = asyncio.create_task(deploy(client, spec("f")))
    mine = "SELECT count(*) FROM outbox WHERE target LIKE $1"  # the registry may have stopped others' apps
    await until(lambda: sql.fetchval(mine, f"tm.events.{client.workspace}.%"))
    asking = asyncio.create_task(client.function("app", "f"))
    await asyncio.wait({asking}, timeout=0.3)
    assert not asking.done()
    await sql.execute(f"SELECT pg_advisory_unlock({LOCK})")
    handle = await asking
    assert await client.pool(handle.pool) is not None
    assert handle == (await deploying).handles["f"]
    await sql.close()


# --- versions


async def test_a_pinned_version_is_the_same_function_whatever_is_deployed(client: Any, spec: Spec) -> None:
    first = await deploy(client, spec("f", autoscaling=Autoscaling(min_containers=2)))
    await deploy(client, spec("f", timeout=5.0))
    await deploy(client, spec("f", timeout=6.0))
    pinned = await client.function("app", "f", 1)
    assert pinned.pool == first.handles["f"].pool
    pool = await client.pool(pinned.pool)
    assert pool.superseded
    assert pool.spec.autoscaling.min_containers == 0
    failure = await refused(client.function("app", "f", 4))
    assert failure.code == "not_found"
    assert "has no version 4" in failure.message


async def test_a_function_is_found_by_its_id(client: Any, spec: Spec) -> None:
    deployed = await deploy(client, spec("f"))
    handle = deployed.handles["f"]
    request = GetFunction("whatever", "else", function_id=handle.function_id)
    assert await client.ask("get_function", request, FunctionHandle) == handle
    await stop(client)
    assert (await refused(client.ask("get_function", request, FunctionHandle))).code == "not_found"


async def test_a_rollback_is_a_version_with_the_pools_of_an_earlier_one(client: Any, spec: Spec) -> None:
    waiting = spec("f", autoscaling=Autoscaling(min_containers=2))
    first = await deploy(client, waiting, spec("g"))
    second = await deploy(client, spec("f", timeout=5.0))
    back = await roll_back(client)
    assert (back.version, back.skipped, back.removed) == (3, False, ())
    assert back.handles == first.handles
    pools = await client.pools()
    assert pools[first.handles["f"].pool].spec.autoscaling.min_containers == 2
    assert not pools[first.handles["f"].pool].superseded
    assert pools[second.handles["f"].pool].superseded
    assert await client.function("app", "f") == first.handles["f"]
    assert (await deploy(client, waiting, spec("g"))).skipped


async def test_a_rollback_goes_to_the_newest_version_that_was_another(client: Any, spec: Spec) -> None:
    first = await deploy(client, spec("f"))
    await deploy(client, spec("f", timeout=5.0))
    await deploy(client, spec("f", timeout=5.0), tag="the same again")
    assert (await roll_back(client)).handles == first.handles


async def test_a_rollback_to_what_is_there_is_skipped(client: Any, spec: Spec) -> None:
    await deploy(client, spec("f"))
    assert (await roll_back(client, 1)).skipped
    assert len(await history(client)) == 1


async def test_a_rollback_to_nothing_is_refused(client: Any, spec: Spec) -> None:
    assert (await refused(roll_back(client))).code == "not_found"
    await deploy(client, spec("f"))
    assert (await refused(roll_back(client))).code == "conflict"
    assert (await refused(roll_back(client, 7))).code == "not_found"
    run = await client.create("app")
    failure = await refused(client.ask("rollback_app", RollbackApp(run), AppDeployed))
    assert failure.code == "conflict"
    assert "ephemeral" in failure.message


async def test_a_rollover_gives_every_pool_a_new_generation(client: Any, spec: Spec) -> None:
    first = await deploy(client, spec("f"), spec("g"))
    second = await roll_over(client, strategy="recreate")
    assert (second.version, second.skipped, second.handles) == (2, False, first.handles)
    for pool in (await client.pools()).values():
        assert (pool.generation, pool.strategy, pool.superseded) == (1, "recreate", False)
    assert (await deploy(client, spec("f"), spec("g"))).skipped


async def test_recreating_replaces_what_runs_and_spares_what_starts_later(client: Any, spec: Spec) -> None:
    first = await deploy(client, spec("f"), spec("same"))
    await deploy(client, spec("f", timeout=5.0), spec("same"), strategy="recreate")
    pools = await client.pools()
    old, same = pools[first.handles["f"].pool], pools[first.handles["same"].pool]
    assert (old.superseded, old.generation, old.strategy) == (True, 1, "recreate")
    assert (same.superseded, same.generation, same.strategy) == (False, 1, "recreate")


async def test_a_rolling_deployment_leaves_unchanged_functions_alone(client: Any, spec: Spec) -> None:
    first = await deploy(client, spec("f"), spec("same"))
    await deploy(client, spec("f", timeout=5.0), spec("same"))
    pools = await client.pools()
    old, same = pools[first.handles["f"].pool], pools[first.handles["same"].pool]
    assert (old.superseded, old.generation, old.strategy) == (True, 0, "rolling")
    assert (same.superseded, same.generation) == (False, 0)


async def test_versions_are_told_as_events(client: Any, spec: Spec) -> None:
    deployed = await deploy(client, spec("f"))
    await deploy(client, spec("f", timeout=5.0))
    told = await client.event("app", deployed.app_id)
    event = coding.decode(AppEvent, told.data)
    assert (event.name, event.state, event.version) == ("app", "published", 2)


# --- the end, and names


async def test_the_name_of_a_stopped_app_is_free(client: Any, spec: Spec) -> None:
    first = await deploy(client, spec("f"))
    await stop(client, reason="enough")
    assert (await refused(client.function("app", "f"))).code == "not_found"
    assert (await refused(stop(client))).code == "not_found"
    await stop(client, first.app_id)  # once more changes nothing
    assert await client.pools() == {}
    second = await deploy(client, spec("f"))
    assert second.app_id != first.app_id
    assert second.version == 1
    details = await client.ask("get_app", GetApp(first.app_id), AppDetails)
    assert details.app.stop_reason == "enough"


async def test_nothing_is_done_to_a_stopped_app(client: Any, spec: Spec) -> None:
    deployed = await deploy(client, spec("f"))
    await stop(client)
    for verb, request in (
        ("rollback_app", RollbackApp(deployed.app_id)),
        ("rollover_app", RolloverApp(deployed.app_id)),
        ("set_tags", SetTags(deployed.app_id, {})),
    ):
        failure = await refused(client.ask(verb, request, Done))
        assert (failure.code, "stopped" in failure.message) == ("conflict", True)
    assert len(await history(client, deployed.app_id)) == 1


async def test_an_app_is_looked_up_and_made_if_that_is_wanted(client: Any, spec: Spec) -> None:
    failure = await refused(client.ask("lookup_app", LookupApp("app"), AppCreated))
    assert failure.code == "not_found"
    assert "'app'" in failure.message
    assert "'main'" in failure.message
    made = await client.ask("lookup_app", LookupApp("app", create_if_missing=True), AppCreated)
    assert await client.ask("lookup_app", LookupApp("app"), AppCreated) == made
    deployed = await deploy(client, spec("f"), tags={"a": "b"})
    assert (deployed.app_id, deployed.version) == (made.app_id, 1)
    again = await client.ask("lookup_app", LookupApp("app", create_if_missing=True), AppCreated)
    assert again == made
    assert (await client.ask("get_tags", GetTags("app"), Tags)).tags == {"a": "b"}


async def test_setting_tags_replaces_all_of_them(client: Any, spec: Spec) -> None:
    await deploy(client, spec("f"), tags={"a": "1", "b": "2"})
    answer = await client.ask("set_tags", SetTags("app", {"b": "3"}), Tags)
    assert answer.tags == {"b": "3"}
    assert (await client.ask("get_tags", GetTags("app"), Tags)).tags == {"b": "3"}
    assert (await refused(client.ask("get_tags", GetTags("none"), Tags))).code == "not_found"
    assert (await refused(client.ask("set_tags", SetTags("app", {"k": "\0"}), Tags))).code == "invalid"
