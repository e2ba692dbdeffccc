"""Secrets in the real tables."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from stored_records import Records, spec

from tidemill._wire.deploying import StopDeployed
from tidemill._wire.environments import CreateEnvironment
from tidemill._wire.secrets import (
    DeleteSecret,
    GetSecret,
    ListSecrets,
    PutAppSecret,
    PutSecret,
    RevealSecrets,
    SecretInfo,
)
from tidemill.exception import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    ServiceError,
)
from tidemill_registry import environments
from tidemill_registry.apps import Apps
from tidemill_registry.cipher import Keyring
from tidemill_registry.database import database_clock
from tidemill_registry.secrets import Secrets

ONE, OTHER = Keyring([b"1" * 32]), Keyring([b"2" * 32])


@pytest.fixture
def secrets(engine: AsyncEngine) -> Secrets:
    return Secrets(engine, ONE, database_clock)


async def put(secrets: Secrets, records: Records, name: str = "s", **values: str) -> SecretInfo:
    return await secrets.put(records.workspace, PutSecret(name, values))


async def revealed(
    secrets: Secrets,
    records: Records,
    *wanted: str,
    **fields: Any,
) -> dict[str, str]:
    """Return what a container of a function that uses some secrets finds."""
    deployed = await records.deploy(spec("f", secrets=wanted), **fields)
    request = RevealSecrets(deployed.handles["f"].pool, wanted)
    return (await secrets.reveal(records.workspace, request)).values


async def test_a_container_finds_what_was_stored(secrets: Secrets, records: Records) -> None:
    info = await put(secrets, records, TOKEN="value", OTHER="ü")
    assert (info.name, info.environment, info.keys) == ("s", "main", ("OTHER", "TOKEN"))
    assert info.last_used is None
    assert await revealed(secrets, records, info.secret_id) == {"TOKEN": "value", "OTHER": "ü"}
    known = await secrets.get(records.workspace, GetSecret("s"))
    assert known.last_used is not None
    assert known.secret_id == info.secret_id


async def test_later_secrets_win_over_earlier_ones(secrets: Secrets, records: Records) -> None:
    first = await put(secrets, records, "first", A="1", B="1")
    second = await put(secrets, records, "second", B="2", C="2")
    found = await revealed(secrets, records, first.secret_id, second.secret_id)
    assert found == {"A": "1", "B": "2", "C": "2"}
    found = await revealed(secrets, records, second.secret_id, first.secret_id)
    assert found == {"A": "1", "B": "1", "C": "2"}


async def test_a_name_is_replaced_only_when_that_is_meant(secrets: Secrets, records: Records) -> None:
    info = await put(secrets, records, A="1", B="1")
    with pytest.raises(AlreadyExistsError, match="'s'"):
        await put(secrets, records, A="2")
    assert await revealed(secrets, records, info.secret_id) == {"A": "1", "B": "1"}
    merged = await secrets.put(records.workspace, PutSecret("s", {"B": "2", "C": "2"}, merge=True))
    assert (merged.secret_id, merged.keys) == (info.secret_id, ("A", "B", "C"))
    assert merged.updated > info.updated
    assert await revealed(secrets, records, info.secret_id) == {"A": "1", "B": "2", "C": "2"}
    await secrets.put(records.workspace, PutSecret("s", {"D": "3"}, overwrite=True))
    assert await revealed(secrets, records, info.secret_id) == {"D": "3"}


async def test_updates_at_the_same_moment_are_all_kept(secrets: Secrets, records: Records) -> None:
    info = await put(secrets, records)
    names = [f"KEY_{number}" for number in range(8)]
    requests = (secrets.put(records.workspace, PutSecret("s", {name: name}, merge=True)) for name in names)
    await asyncio.gather(*requests)
    assert await revealed(secrets, records, info.secret_id) == {name: name for name in names}


async def test_required_keys_that_are_not_there_are_named(secrets: Secrets, records: Records) -> None:
    await put(secrets, records, TOKEN="value")
    await secrets.get(records.workspace, GetSecret("s", required_keys=("TOKEN",)))
    with pytest.raises(InvalidError, match="lacks A, B"):
        await secrets.get(records.workspace, GetSecret("s", required_keys=("B", "TOKEN", "A")))


async def test_secrets_are_listed_by_name_in_pages_without_values(
    secrets: Secrets,
    records: Records,
) -> None:
    for name in ("c", "a", "b"):
        await put(secrets, records, name, TOKEN="value")
    await secrets.put_unnamed(records.workspace, PutAppSecret({"A": "1"}))
    first = await secrets.list_named(records.workspace, ListSecrets(limit=2))
    assert [info.name for info in first.secrets] == ["a", "b"]
    rest = await secrets.list_named(records.workspace, ListSecrets(limit=2, cursor=first.cursor))
    assert [info.name for info in rest.secrets] == ["c"]
    assert not rest.cursor
    assert "value" not in repr(first)


async def test_environments_have_secrets_of_their_own(secrets: Secrets, records: Records) -> None:
    await environments.create(records.engine, records.workspace, CreateEnvironment("dev"))
    await put(secrets, records, WHERE="main")
    with pytest.raises(NotFoundError, match="'dev'"):
        await secrets.get(records.workspace, GetSecret("s", "dev"))
    dev = await secrets.put(records.workspace, PutSecret("s", {"WHERE": "dev"}, "dev"))
    assert await revealed(secrets, records, dev.secret_id) == {"WHERE": "dev"}  # used from another one


async def test_equal_values_without_a_name_are_one_secret(secrets: Secrets, records: Records) -> None:
    first = await secrets.put_unnamed(records.workspace, PutAppSecret({"A": "1", "B": "2"}))
    again = await secrets.put_unnamed(records.workspace, PutAppSecret({"B": "2", "A": "1"}))
    other = await secrets.put_unnamed(records.workspace, PutAppSecret({"A": "1", "B": "3"}))
    assert first.secret_id == again.secret_id != other.secret_id
    assert first.name is None
    assert await revealed(secrets, records, first.secret_id) == {"A": "1", "B": "2"}


async def test_only_pools_that_declare_a_secret_get_it(secrets: Secrets, records: Records) -> None:
    mine, others = await put(secrets, records, "mine", A="1"), await put(secrets, records, "others", B="2")
    deployed = await records.deploy(spec("f", secrets=(mine.secret_id,)))
    pool = deployed.handles["f"].pool
    for request in (
        RevealSecrets(pool, (others.secret_id,)),
        RevealSecrets(pool, (mine.secret_id, others.secret_id)),
        RevealSecrets("po-none", (mine.secret_id,)),
    ):
        with pytest.raises(PermissionDeniedError, match="does not use"):
            await secrets.reveal(records.workspace, request)
    with pytest.raises(PermissionDeniedError):
        await secrets.reveal("another", RevealSecrets(pool, (mine.secret_id,)))


async def test_a_function_cannot_declare_another_workspaces_secret(
    secrets: Secrets, records: Records
) -> None:
    info = await put(secrets, records, A="1")
    await environments.prepare(records.engine, "intruder")
    intruder = Records(records.engine, "intruder")
    with pytest.raises(NotFoundError, match="'f': its secret"):
        await intruder.deploy(spec("f", secrets=(info.secret_id,)))
    with pytest.raises(NotFoundError):
        await secrets.get("intruder", GetSecret("s"))


async def test_a_deleted_secret_is_told_to_whoever_still_uses_it(secrets: Secrets, records: Records) -> None:
    info = await put(secrets, records, A="1")
    deployed = await records.deploy(spec("f", secrets=(info.secret_id,)))
    await secrets.remove(records.workspace, DeleteSecret("s"))
    request = RevealSecrets(deployed.handles["f"].pool, (info.secret_id,))
    with pytest.raises(NotFoundError, match="was deleted"):
        await secrets.reveal(records.workspace, request)
    with pytest.raises(NotFoundError, match="'s'"):
        await secrets.remove(records.workspace, DeleteSecret("s"))
    await secrets.remove(records.workspace, DeleteSecret("s", allow_missing=True))


async def test_values_without_a_name_go_when_no_app_uses_them(secrets: Secrets, records: Records) -> None:
    used = await secrets.put_unnamed(records.workspace, PutAppSecret({"A": "used"}))
    unused = await secrets.put_unnamed(records.workspace, PutAppSecret({"A": "unused"}))
    named = await put(secrets, records, A="named")
    fresh = await secrets.put_unnamed(records.workspace, PutAppSecret({"A": "fresh"}))
    await records.deploy(spec("f", secrets=(used.secret_id,)))
    await records.sql(
        "UPDATE secrets SET updated_at = now() - interval '2 days' WHERE id <> :fresh", fresh=fresh.secret_id
    )

    async def left() -> set[str]:
        await secrets.collect()
        query = (
            "SELECT array_agg(secrets.id) FROM secrets JOIN environments ON environments.id = environment_id "
            "JOIN workspaces ON workspaces.id = workspace_id WHERE workspaces.name = :name"
        )
        return set(await records.sql(query, name=records.workspace))

    assert await left() == {used.secret_id, named.secret_id, fresh.secret_id}
    assert unused.secret_id not in await left()
    await records.deploy(spec("f"))
    assert used.secret_id in await left()  # the version before can still be called
    apps = Apps(records.engine, database_clock)
    await apps.stop_named(records.workspace, StopDeployed("app"))
    assert await left() == {named.secret_id, fresh.secret_id}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"": "v"}, "not a name"),
        ({"A=B": "v"}, "not a name"),
        ({"A": "v\0"}, "value of A"),
        ({"A": "v" * 300_000}, "at most 262,144 bytes"),
        ({f"A{number}": "v" for number in range(1_001)}, "at most 1,000 variables"),
    ],
)
async def test_what_cannot_be_a_variable_is_refused_without_its_value(
    secrets: Secrets,
    records: Records,
    values: dict[str, str],
    words: str,
) -> None:
    for storing in (
        secrets.put(records.workspace, PutSecret("s", values)),
        secrets.put_unnamed(records.workspace, PutAppSecret(values)),
    ):
        with pytest.raises(InvalidError, match=words) as caught:
            await storing
        assert "vvv" not in str(caught.value)


# --- keys


async def test_a_wrong_key_reads_nothing_says_so_and_loses_nothing(
    secrets: Secrets, records: Records
) -> None:
    info = await put(secrets, records, A="1")
    wrong = Secrets(records.engine, OTHER, database_clock)
    assert ONE.first in await wrong.check_keys()
    with pytest.raises(ServiceError, match=ONE.first):
        await revealed(wrong, records, info.secret_id)
    with pytest.raises(ServiceError, match=ONE.first):
        await wrong.put(records.workspace, PutSecret("s", {"B": "2"}, merge=True))
    assert await revealed(secrets, records, info.secret_id) == {"A": "1"}


async def test_without_a_key_secrets_are_refused_and_the_rest_works(records: Records) -> None:
    keyless = Secrets(records.engine, Keyring([]), database_clock)
    with pytest.raises(ServiceError, match="no key"):
        await put(keyless, records, A="1")
    await records.deploy(spec("f"))
    assert (await keyless.list_named(records.workspace, ListSecrets())).secrets == ()


async def test_keys_are_rotated_by_the_command(
    secrets: Secrets,
    records: Records,
    shared_database: Any,
) -> None:
    import base64

    infos = [await put(secrets, records, f"s{number}", A=str(number)) for number in range(3)]
    values = PutAppSecret({"A": "unnamed"})
    unnamed = await secrets.put_unnamed(records.workspace, values)
    old, new = (base64.b64encode(letter * 32).decode() for letter in (b"1", b"2"))

    def rotate(keys: str) -> "subprocess.CompletedProcess[str]":
        environment = {
            **os.environ,
            "TIDEMILL_DATABASE_URL": shared_database.url,
            "TIDEMILL_SECRETS_KEY": keys,
        }
        command = [sys.executable, "-m", "tidemill_registry", "rotate-key"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    alone = await asyncio.to_thread(rotate, new)  # the key before is missing: nothing is touched
    assert alone.returncode == 1
    assert ONE.first in alone.stderr
    assert await secrets.get(records.workspace, GetSecret("s0")) == infos[0]
    done = await asyncio.to_thread(rotate, f"{new},{old}")
    assert done.returncode == 0, done.stderr
    assert "encrypted anew" in done.stdout
    rotated = Secrets(records.engine, OTHER, database_clock)
    assert await rotated.check_keys() == ""
    assert await revealed(rotated, records, infos[1].secret_id, unnamed.secret_id) == {"A": "unnamed"}
    assert (await rotated.put_unnamed(records.workspace, values)).secret_id == unnamed.secret_id
