"""Versions stay callable, within bounds."""

import pytest
from stored_records import Records, spec

from tidemill._wire.control import GetFunction
from tidemill._wire.deploying import ListDeployments, RollbackApp
from tidemill.exception import NotFoundError
from tidemill_common.streams import handles_key
from tidemill_registry import deployments, lookups, retention
from tidemill_registry.database import database_clock


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep three versions, five at most, and the records of eight."""
    monkeypatch.setattr(retention, "KEPT_VERSIONS", 3)
    monkeypatch.setattr(retention, "MAX_KEPT_VERSIONS", 5)
    monkeypatch.setattr(retention, "KEPT_RECORDS", 8)


async def callable_versions(records: Records, upto: int) -> list[int]:
    versions = []
    for version in range(1, upto + 1):
        try:
            request = GetFunction("app", "f", version=version)
            handle, _ = await lookups.get_function(records.engine, records.workspace, request)
        except NotFoundError:
            continue
        assert await records.sql("SELECT count(*) FROM pools WHERE id = :id", id=handle.pool) == 1
        versions.append(version)
    return versions


async def trim(records: Records) -> None:
    """Trim until nothing is left to do: the other tests' apps are there too."""
    while await retention.trim(records.engine, database_clock):
        pass


@pytest.mark.usefixtures("few")
async def test_versions_that_were_superseded_lately_stay_up_to_a_bound(records: Records) -> None:
    for number in range(7):
        await records.deploy(spec("f", timeout=number + 1.0))
    await trim(records)
    assert await callable_versions(records, 7) == [3, 4, 5, 6, 7]


@pytest.mark.usefixtures("few")
async def test_versions_that_were_superseded_long_ago_go_and_nats_is_told(records: Records) -> None:
    first = await records.deploy(spec("f", timeout=1.0))
    for number in range(1, 5):
        await records.deploy(spec("f", timeout=number + 1.0))
    aged = "UPDATE deployments SET created_at = created_at - interval '8 days' WHERE app_id = :id"
    await records.sql(aged, id=first.app_id)
    await trim(records)
    assert await callable_versions(records, 5) == [3, 4, 5]
    gone = "SELECT count(*) FROM outbox WHERE kind = 'delete' AND key = :id"
    assert await records.sql(gone, id=first.handles["f"].pool) == 1
    assert await records.sql(gone, id=handles_key(first.app_id, 2)) == 1
    assert await records.sql(gone, id=handles_key(first.app_id, 3)) == 0
    listed = await deployments.list_versions(records.engine, records.workspace, ListDeployments("app"))
    assert [(one.version, one.functions) for one in listed.deployments][-1] == (1, ("f",))
    with pytest.raises(NotFoundError, match="no longer keeps"):
        await lookups.get_function(records.engine, records.workspace, GetFunction("app", "f", version=1))
    request = RollbackApp("app", version=1)
    with pytest.raises(NotFoundError, match="no longer kept"):
        await deployments.roll_back(records.engine, records.workspace, request, database_clock)


@pytest.mark.usefixtures("few")
async def test_a_pool_that_a_kept_version_has_stays(records: Records) -> None:
    steady = (spec("steady"),)
    first = await records.deploy(*steady, spec("f", timeout=1.0))
    for number in range(1, 9):
        await records.deploy(*steady, spec("f", timeout=number + 1.0))
    await records.deploy(*steady, spec("f", timeout=1.0))  # the first pool serves again
    await trim(records)
    handle, _ = await lookups.get_function(records.engine, records.workspace, GetFunction("app", "steady"))
    assert handle == first.handles["steady"]
    handle, _ = await lookups.get_function(records.engine, records.workspace, GetFunction("app", "f"))
    assert handle == first.handles["f"]


@pytest.mark.usefixtures("few")
async def test_the_oldest_records_and_names_go(records: Records) -> None:
    first = await records.deploy(spec("once"))
    for number in range(9):
        await records.deploy(spec("f", timeout=number + 1.0))
    await trim(records)
    listed = await deployments.list_versions(records.engine, records.workspace, ListDeployments("app"))
    assert [one.version for one in listed.deployments] == [10, 9, 8, 7, 6, 5, 4, 3]
    names = "SELECT count(*) FROM functions WHERE name = 'once' AND app_id = :id"
    assert await records.sql(names, id=first.app_id) == 0
    assert await records.deploy(spec("once"))
