"""Pages of apps and functions, and environments, in the real tables."""

import asyncio
from typing import Any

import pytest
from stored_records import Records, spec

from tidemill._wire.apps import CreateApp, PublishFunctions
from tidemill._wire.control import GetFunction
from tidemill._wire.deploying import FindApps, FindFunctions, SetTags, StopDeployed
from tidemill._wire.environments import CreateEnvironment, DeleteEnvironment, UpdateEnvironment
from tidemill._wire.secrets import GetSecret, PutSecret
from tidemill.exception import AlreadyExistsError, ConflictError, InvalidError, NotFoundError
from tidemill_registry import environments, lookups, publishing, tags
from tidemill_registry.apps import Apps
from tidemill_registry.cipher import Keyring
from tidemill_registry.database import database_clock
from tidemill_registry.secrets import Secrets


async def found(records: Records, **fields: Any) -> list[str | None]:
    """Return the names of the apps that fit a request, over all its pages."""
    names: list[str | None] = []
    cursor = ""
    while True:
        page = await lookups.find_apps(records.engine, records.workspace, FindApps(**fields, cursor=cursor))
        names += [app.name for app in page.apps]
        if not (cursor := page.cursor):
            return names


async def make_environment(records: Records, name: str) -> None:
    await environments.create(records.engine, records.workspace, CreateEnvironment(name))


async def names_of_environments(records: Records) -> list[str]:
    listed = await environments.list_all(records.engine, records.workspace)
    return [environment.name for environment in listed.environments]


# --- apps


async def test_apps_come_newest_first_each_once_however_large_the_pages(records: Records) -> None:
    apps = Apps(records.engine, database_clock)
    for number in range(7):
        await apps.create(records.workspace, CreateApp(f"app-{number}", "", "detached"))
    await records.sql("UPDATE apps SET created_at = date_trunc('day', created_at)")  # all at one moment
    whole = await found(records)
    assert sorted(name or "" for name in whole) == [f"app-{number}" for number in range(7)]
    for limit in (1, 2, 3, 6, 7, 8):
        assert await found(records, limit=limit) == whole


async def test_an_app_that_is_made_meanwhile_moves_no_page(records: Records) -> None:
    for number in range(4):
        await records.deploy(name=f"app-{number}")
    first = await lookups.find_apps(records.engine, records.workspace, FindApps(limit=2))
    await records.deploy(name="newer")
    request = FindApps(limit=2, cursor=first.cursor)
    second = await lookups.find_apps(records.engine, records.workspace, request)
    assert [app.name for app in second.apps] == ["app-1", "app-0"]


async def test_apps_are_found_by_state_name_tags_and_environment(records: Records) -> None:
    await make_environment(records, "dev")
    await records.deploy(spec("f"), name="billing", tags={"team": "a", "tier": "1"})
    await records.deploy(name="billing-2", tags={"team": "b"})
    await records.deploy(name="other_1", environment="dev", tags={"team": "a"})
    apps = Apps(records.engine, database_clock)
    await apps.create(records.workspace, CreateApp("run", "", "ephemeral"))
    await apps.stop_named(records.workspace, StopDeployed("billing-2"))
    assert await found(records) == ["run", "other_1", "billing"]
    assert await found(records, states=("deployed",)) == ["other_1", "billing"]
    assert await found(records, states=("stopped",)) == ["billing-2"]
    assert await found(records, name="bill") == ["billing"]
    assert await found(records, name="_") == ["other_1"]
    assert await found(records, name="%") == []
    assert await found(records, tags={"team": "a"}) == ["other_1", "billing"]
    assert await found(records, tags={"team": "a", "tier": "1"}) == ["billing"]
    assert await found(records, tags={"team": "a"}, environment="main") == ["billing"]
    await tags.replace(records.engine, records.workspace, SetTags("billing", {"team": "c"}))
    assert await found(records, tags={"team": "a"}) == ["other_1"]
    with pytest.raises(NotFoundError, match="'nowhere'"):
        await found(records, environment="nowhere")
    for wrong in ({"limit": 0}, {"limit": 1_001}):
        with pytest.raises(InvalidError, match="limit"):
            await found(records, **wrong)


async def test_another_workspace_finds_nothing(records: Records) -> None:
    deployed = await records.deploy(spec("f"))
    await environments.prepare(records.engine, "stranger")
    stranger = Records(records.engine, "stranger")
    assert await found(stranger) == []
    handle = deployed.handles["f"]
    for request in (GetFunction("app", "f"), GetFunction("", "", function_id=handle.function_id)):
        with pytest.raises(NotFoundError):
            await lookups.get_function(records.engine, "stranger", request)
    with pytest.raises(NotFoundError):
        await publishing.publish(
            records.engine, "stranger", PublishFunctions(deployed.app_id, (spec("g"),)), database_clock
        )
    with pytest.raises(NotFoundError):
        await Apps(records.engine, database_clock).stop("stranger", deployed.app_id, "")


# --- functions


async def test_present_functions_are_listed_by_app_and_name(records: Records) -> None:
    await records.deploy(spec("b"), spec("a", timeout=7.0), name="one")
    await records.deploy(spec("old"), name="two")
    await records.deploy(spec("z"), spec("c"), name="two")
    listed = []
    cursor = ""
    while True:
        request = FindFunctions(limit=3, cursor=cursor)
        page = await lookups.find_functions(records.engine, records.workspace, request)
        listed += page.functions
        if not (cursor := page.cursor):
            break
    shown = [(one.app_name, one.name, one.version) for one in listed]
    assert shown == [("one", "a", 1), ("one", "b", 1), ("two", "c", 2), ("two", "z", 2)]
    assert (listed[0].spec.timeout, listed[0].environment) == (7.0, "main")
    only = await lookups.find_functions(records.engine, records.workspace, FindFunctions(app="two"))
    assert [one.name for one in only.functions] == ["c", "z"]


# --- environments


async def test_an_environment_has_apps_of_its_own(records: Records) -> None:
    await make_environment(records, "dev")
    first = await records.deploy(spec("f"))
    second = await records.deploy(spec("f"), environment="dev")
    assert first.app_id != second.app_id
    listed = await environments.list_all(records.engine, records.workspace)
    assert [(one.name, one.web_suffix, one.apps) for one in listed.environments] == [
        ("dev", "dev", 1),
        ("main", "", 1),
    ]


async def test_names_and_suffixes_of_environments_are_theirs_alone(records: Records) -> None:
    await make_environment(records, "Dev.1")
    for request in (
        CreateEnvironment("Dev.1", "other"),
        CreateEnvironment("dev-1"),
        CreateEnvironment("main"),
    ):
        with pytest.raises(AlreadyExistsError):
            await environments.create(records.engine, records.workspace, request)
    with pytest.raises(InvalidError, match="suffix"):
        await environments.create(records.engine, records.workspace, CreateEnvironment("x", "Not This"))
    made = (environments.create(records.engine, records.workspace, CreateEnvironment("twin")) for _ in "ab")
    outcomes = await asyncio.gather(*made, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadyExistsError", "EnvironmentInfo"]


async def test_a_renamed_environment_keeps_its_apps_whose_containers_learn_its_name(records: Records) -> None:
    from tidemill._wire import coding
    from tidemill._wire.specs import Pool

    await make_environment(records, "dev")
    deployed = await records.deploy(spec("f"), environment="dev")
    request = UpdateEnvironment("dev", new_name="staging")
    changed = await environments.change(records.engine, records.workspace, request)
    assert (changed.name, changed.web_suffix) == ("staging", "dev")
    handle, _ = await lookups.get_function(
        records.engine, records.workspace, GetFunction("app", "f", "staging")
    )
    assert handle == deployed.handles["f"]
    record = await records.sql("SELECT record FROM pools WHERE id = :id", id=handle.pool)
    assert coding.decode(Pool, record).environment == "staging"
    told = await records.sql(
        "SELECT count(*) FROM outbox WHERE key = :id AND body = :it", id=handle.pool, it=record
    )
    assert told == 1
    with pytest.raises(NotFoundError, match="'dev'"):
        await records.deploy(spec("f"), environment="dev")
    again = await records.deploy(spec("f"), environment="staging")
    assert again.skipped


async def test_deleting_an_environment_stops_its_apps_and_takes_everything_along(records: Records) -> None:
    await make_environment(records, "dev")
    kept = await records.deploy(spec("f"))
    gone = await records.deploy(spec("f"), environment="dev")
    secrets = Secrets(records.engine, Keyring([b"1" * 32]), database_clock)
    await secrets.put(records.workspace, PutSecret("s", {"A": "1"}, "dev"))
    apps = Apps(records.engine, database_clock)
    await apps.delete_environment(records.workspace, DeleteEnvironment("dev"))
    pool = gone.handles["f"].pool
    assert await records.sql("SELECT count(*) FROM outbox WHERE kind = 'delete' AND key = :id", id=pool) == 1
    assert await names_of_environments(records) == ["main"]
    assert await found(records, states=("deployed", "stopped")) == ["app"]
    await make_environment(records, "dev")  # the name is free, and nothing is left under it
    assert await found(records, environment="dev", states=("deployed", "stopped")) == []
    with pytest.raises(NotFoundError):
        await secrets.get(records.workspace, GetSecret("s", "dev"))
    handle, _ = await lookups.get_function(records.engine, records.workspace, GetFunction("app", "f"))
    assert handle == kept.handles["f"]


async def test_the_last_environment_stays(records: Records) -> None:
    apps = Apps(records.engine, database_clock)
    with pytest.raises(ConflictError, match="last environment"):
        await apps.delete_environment(records.workspace, DeleteEnvironment("main"))
    await make_environment(records, "dev")
    await apps.delete_environment(records.workspace, DeleteEnvironment("main"))
    await environments.prepare(records.engine, records.workspace)  # as at each start
    assert await names_of_environments(records) == ["dev"]


async def test_an_app_and_the_end_of_its_environment_do_not_meet(records: Records) -> None:
    """Whichever comes first: no app is left in an environment that is gone."""
    apps = Apps(records.engine, database_clock)
    for _ in range(5):
        await make_environment(records, "dev")
        outcomes = await asyncio.gather(
            *(records.deploy(spec("f"), name=f"app-{number}", environment="dev") for number in range(4)),
            apps.delete_environment(records.workspace, DeleteEnvironment("dev")),
            return_exceptions=True,
        )
        assert all(
            not isinstance(outcome, Exception) or isinstance(outcome, NotFoundError) for outcome in outcomes
        )
        assert await found(records, states=("deployed", "stopped")) == []
