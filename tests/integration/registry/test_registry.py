"""The registry, asked over NATS."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from refusals import refused

from tidemill._wire import coding, subjects
from tidemill._wire.apps import AppDetails, AppList, CreateApp, GetApp, ListApps
from tidemill._wire.control import AppEvent
from tidemill._wire.specs import Autoscaling, FunctionSpec, Resources, Source
from tidemill._wire.tokens import VerifyToken

Spec = Callable[..., FunctionSpec]


@pytest.fixture
def client(tenant: Any) -> Any:
    """Each test has a workspace of its own on a registry that they share."""
    return tenant


# --- publishing


async def test_pools_are_in_the_bucket_when_publishing_is_answered(client: Any, spec: Spec) -> None:
    app_id = await client.create("app")
    handles = await client.publish(app_id, spec("f", resources=Resources(gpus=(("T4", 1),))), spec("g"))
    pools = await client.pools()
    assert set(pools) == {handle.pool for handle in handles.values()}
    f = pools[handles["f"].pool]
    assert (f.app_id, f.app_name, f.workspace, f.environment) == (app_id, "app", client.workspace, "main")
    assert (f.capability, f.stream) == ("gpu-T4", f"INPUTS_gpu_{f.shard}")
    assert await client.siblings(f) == handles
    assert handles["f"].prefix == f.prefix


async def test_everything_of_a_specification_arrives_in_the_pool(client: Any) -> None:
    given = FunctionSpec(
        name="outer.<locals>.f",
        source=Source(("digest",), "m", "f"),
        env={"KEY": "ü"},
        resources=Resources(cpu=2.0, memory=512),
        autoscaling=Autoscaling(max_containers=3),
        schedule={"kind": "cron", "cron": "* * * * *"},
        labels={"region": ("eu", "us")},
        options={"cloud": None, "deep": [1, {"x": b"\0"}]},
    )
    handles = await client.publish(await client.create(), given)
    pool = await client.pool(handles[given.name].pool)
    assert coding.decode(FunctionSpec, coding.encode(pool.spec)) == pool.spec
    assert (pool.spec.env, pool.spec.labels, pool.spec.options) == (given.env, given.labels, given.options)


async def test_the_same_request_again_gives_the_same_handles(client: Any, spec: Spec) -> None:
    app_id = await client.create()
    first = await client.publish(app_id, spec("f"), spec("g"))
    assert await client.publish(app_id, spec("f"), spec("g")) == first
    assert (await details(client, app_id)).app.version == 1


async def test_the_same_request_at_once_gives_the_same_handles(client: Any, spec: Spec) -> None:
    app_id = await client.create()
    answers = await asyncio.gather(*(client.publish(app_id, spec("f")) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert len(await client.pools()) == 1


async def test_a_changed_function_gets_another_pool_and_the_old_one_keeps_nothing_waiting(
    client: Any, spec: Spec
) -> None:
    app_id = await client.create()
    waiting = Autoscaling(min_containers=2)
    first = await client.publish(app_id, spec("f", autoscaling=waiting), spec("g"))
    second = await client.publish(app_id, spec("f", autoscaling=waiting, timeout=5.0), spec("g"))
    assert second["f"].pool != first["f"].pool
    assert second["g"].pool == first["g"].pool
    pools = await client.pools()
    assert pools[first["f"].pool].spec.autoscaling.min_containers == 0
    assert pools[second["f"].pool].spec.autoscaling.min_containers == 2
    assert await client.siblings(pools[first["f"].pool]) == first
    assert await client.siblings(pools[first["g"].pool]) == second
    assert (await details(client, app_id)).handles == second


async def test_going_back_to_an_earlier_function_brings_its_pool_back(client: Any, spec: Spec) -> None:
    app_id = await client.create()
    first = await client.publish(app_id, spec("f", autoscaling=Autoscaling(min_containers=1)))
    await client.publish(app_id, spec("f", timeout=5.0))
    third = await client.publish(app_id, spec("f", autoscaling=Autoscaling(min_containers=1)))
    assert third == first
    pool = await client.pool(first["f"].pool)
    assert pool.spec.autoscaling.min_containers == 1
    assert (await details(client, app_id)).app.version == 3


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ([FunctionSpec("bad", Source())], "'bad': it names neither"),
        ([FunctionSpec("f", Source(module="m", qualname="f"), timeout=-1.0)], "timeout"),
        ([FunctionSpec("f", Source(module="m", qualname="f"))] * 2, "two functions"),
        ([FunctionSpec("f", Source(module="m", qualname="f"), timeout="soon")], r"Expected `float`"),  # type: ignore[arg-type]
        ([{"name": "f"}], "source"),
        ([FunctionSpec("f", Source(module="m", qualname="f"), env={"X": "x" * 1_100_000})], "record takes"),
    ],
)
async def test_a_function_that_cannot_be_is_refused_and_nothing_is_stored(
    client: Any, spec: Spec, functions: list[Any], words: str
) -> None:
    app_id = await client.create()
    kept = await client.publish(app_id, spec("kept"))
    failure = await refused(client.publish(app_id, spec("good"), *functions))
    assert failure.code == "invalid"
    assert words in failure.message
    assert set(await client.pools()) == {kept["kept"].pool}
    assert (await details(client, app_id)).handles == kept


async def test_publishing_for_no_app_or_a_stopped_one_is_refused(client: Any, spec: Spec) -> None:
    assert (await refused(client.publish("ap-none", spec()))).code == "not_found"
    app_id = await client.create()
    await client.stop(app_id, "enough")
    failure = await refused(client.publish(app_id, spec()))
    assert failure.code == "conflict"
    assert "enough" in failure.message
    assert await client.pools() == {}


# --- apps


async def test_stopping_an_app_takes_its_pools_away_and_tells_everybody(client: Any, spec: Spec) -> None:
    app_id = await client.create("app")
    first = await client.publish(app_id, spec("f"))
    await client.publish(app_id, spec("f", timeout=5.0))
    other = await client.publish(await client.create(), spec("f"))
    await client.stop(app_id, "done")
    assert set(await client.pools()) == {other["f"].pool}
    told = await client.event("app", app_id)
    event = coding.decode(AppEvent, told.data)
    assert (event.app_id, event.name, event.state, event.reason) == (app_id, "app", "stopped", "done")
    assert first["f"].pool not in await client.pools()


async def test_stopping_twice_is_stopping_once(client: Any) -> None:
    app_id = await client.create()
    await client.stop(app_id, "first")
    await client.stop(app_id, "second")
    assert (await details(client, app_id)).app.stop_reason == "first"
    assert (await refused(client.stop("ap-none"))).code == "not_found"


async def test_a_heartbeat_of_a_stopped_app_is_told_why_it_stopped(client: Any) -> None:
    app_id = await client.create()
    await client.heartbeat(app_id)
    await client.stop(app_id, "somebody else stopped it")
    failure = await refused(client.heartbeat(app_id))
    assert failure.code == "conflict"
    assert "somebody else stopped it" in failure.message
    assert (await refused(client.heartbeat("ap-none"))).code == "not_found"


async def test_a_heartbeat_of_an_app_that_needs_none_does_no_harm(client: Any) -> None:
    await client.heartbeat(await client.create("app", "detached"))


async def test_two_runs_of_one_name_are_two_apps(client: Any) -> None:
    assert await client.create("app") != await client.create("app")


async def test_a_deployed_app_of_one_name_is_one_app(client: Any) -> None:
    first = await client.create("app", "deployed")
    assert await client.create("app", "deployed") == first
    answers = await asyncio.gather(*(client.create("other", "deployed") for _ in range(8)))
    assert len(set(answers)) == 1
    await client.stop(first)
    assert await client.create("app", "deployed") != first


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (CreateApp("a b", "", "ephemeral"), "invalid"),
        (CreateApp("app", "", "asleep"), "invalid"),
        (CreateApp(None, "", "deployed"), "invalid"),
        (CreateApp("app", "", "ephemeral", environment="nowhere"), "not_found"),
        (CreateApp("app", "", "ephemeral", environment="no where"), "invalid"),
    ],
)
async def test_an_app_that_cannot_be_is_refused(client: Any, request_: CreateApp, code: str) -> None:
    assert (await refused(client.ask("create_app", request_, AppDetails))).code == code
    assert (await client.ask("list_apps", ListApps(include_stopped=True), AppList)).apps == ()


# --- questions


async def details(client: Any, app_id: str) -> AppDetails:
    result: AppDetails = await client.ask("get_app", GetApp(app_id), AppDetails)
    return result


async def test_a_deployed_function_is_found_by_name_and_by_version(client: Any, spec: Spec) -> None:
    app_id = await client.create("app", "deployed")
    first = await client.publish(app_id, spec("f"), spec("gone"))
    second = await client.publish(app_id, spec("f", timeout=5.0))
    assert await client.function("app", "f") == second["f"]
    assert await client.function("app", "f", 2) == second["f"]
    assert (await client.function("app", "f", 1)).pool == first["f"].pool
    assert (await client.function("app", "gone", 1)).pool == first["gone"].pool
    for app, name, version in [("app", "gone", None), ("app", "f", 3), ("none", "f", None)]:
        assert (await refused(client.function(app, name, version))).code == "not_found"
    assert (await client.pool(second["f"].pool)).deployed


async def test_a_function_of_a_run_is_not_found_by_name(client: Any, spec: Spec) -> None:
    await client.publish(await client.create("app"), spec("f"))
    assert (await refused(client.function("app", "f"))).code == "not_found"


async def test_apps_are_listed_newest_first_and_stopped_ones_when_asked(client: Any, spec: Spec) -> None:
    first, second, third = [await client.create(name) for name in ("a", "b", "c")]
    await client.publish(second, spec("f"), spec("g"))
    await client.stop(third, "enough")

    async def listed(**fields: Any) -> list[str]:
        apps = (await client.ask("list_apps", ListApps(**fields), AppList)).apps
        return [app.app_id for app in apps]

    assert await listed() == [second, first]
    assert await listed(include_stopped=True) == [third, second, first]
    assert await listed(limit=1) == [second]
    assert (await refused(listed(limit=0))).code == "invalid"
    app = (await details(client, second)).app
    assert (app.name, app.state, app.functions, app.version) == ("b", "ephemeral", 2, 1)
    stopped = (await details(client, third)).app
    assert (stopped.state, stopped.stop_reason) == ("stopped", "enough")
    assert stopped.stopped is not None
    assert stopped.stopped >= stopped.created


async def test_an_app_is_found_by_the_name_of_a_deployed_one(client: Any) -> None:
    app_id = await client.create("app", "deployed")
    assert (await client.ask("get_app", GetApp(name="app"), AppDetails)).app.app_id == app_id
    for wrong in (GetApp(), GetApp(app_id, "app")):
        assert (await refused(client.ask("get_app", wrong, AppDetails))).code == "invalid"
    assert (await refused(client.ask("get_app", GetApp("ap-none"), AppDetails))).code == "not_found"


async def test_a_token_whose_id_can_be_none_is_refused_as_any_other(client: Any) -> None:
    asked = coding.encode(VerifyToken("ak-main\0", "secret"))
    answer = await refused(
        client.bus.request(subjects.internal("registry", "verify_token"), asked, timeout=30.0)
    )
    assert answer.code == "auth"
