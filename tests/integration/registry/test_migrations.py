"""The schema goes up and down, by one process at a time, from a source tree and from a wheel."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tidemill_local.database import Database
from tidemill_registry import migrate
from tidemill_registry.revision import HEAD, fingerprint, scripts
from tidemill_registry.schema import Base


@pytest.fixture
async def empty(folder: Path) -> AsyncIterator[Database]:
    database = Database(folder / "postgres", durable=False, migrated=False)
    await database.start()
    yield database
    database.kill()


@pytest.fixture
async def engine(empty: Database) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(empty.url)
    yield engine
    await engine.dispose()


async def tables(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        query = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {str(name) for name in await connection.scalars(query)}


async def test_up_makes_what_the_models_say_and_down_leaves_nothing(engine: AsyncEngine) -> None:
    assert await migrate.current(engine) is None
    await migrate.upgrade(engine)
    assert await migrate.current(engine) == HEAD
    assert await tables(engine) == {*Base.metadata.tables, "alembic_version"}
    async with engine.connect() as connection:
        assert await connection.run_sync(_differences) == []
    await migrate.downgrade(engine, "base")
    assert await tables(engine) == {"alembic_version"}
    await migrate.upgrade(engine)
    assert await migrate.current(engine) == HEAD


def _differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


OLD_DATA = """
INSERT INTO workspaces (id, name) VALUES ('ws-1', 'w');
INSERT INTO environments (id, workspace_id, name) VALUES ('en-1', 'ws-1', 'main'), ('en-2', 'ws-1', 'dev');
INSERT INTO apps (id, environment_id, name, state, version) VALUES ('ap-1', 'en-1', 'one', 'deployed', 2);
INSERT INTO functions (id, app_id, name) VALUES ('fu-1', 'ap-1', 'f'), ('fu-2', 'ap-1', 'g');
INSERT INTO pools (id, app_id, function_id, digest, capability, shard, record, superseded_at)
    VALUES ('po-1', 'ap-1', 'fu-1', decode(repeat('aa', 32), 'hex'), 'cpu', 0, 'one', NULL),
           ('po-2', 'ap-1', 'fu-2', decode(repeat('bb', 32), 'hex'), 'cpu', 0, 'two', now());
INSERT INTO deployments (id, app_id, version) VALUES ('de-1', 'ap-1', 1), ('de-2', 'ap-1', 2);
INSERT INTO deployment_functions (app_id, version, function_id, pool_id)
    VALUES ('ap-1', 1, 'fu-2', 'po-2'), ('ap-1', 1, 'fu-1', 'po-1'), ('ap-1', 2, 'fu-1', 'po-1');
INSERT INTO outbox (kind, target, key, body) VALUES ('put', 'pools', 'po-1', 'one');
"""
NEW_DATA = """
INSERT INTO secrets (id, environment_id, name, key_id, ciphertext, keys)
    VALUES ('st-1', 'en-1', 's', 'k', '', '{}');
INSERT INTO pool_secrets (pool_id, secret_id) VALUES ('po-1', 'st-1');
INSERT INTO schedules (id, app_id, function_id, record, version, pool_id)
    VALUES ('sc-1', 'ap-1', 'fu-1', '{}', 1, 'po-1');
INSERT INTO outbox (kind, target, body) VALUES ('timer', 'tm.timers.x', 'x');
UPDATE deployments SET tag = 'v2', rolled_back_to = 1 WHERE version = 2;
"""


async def carry_out(engine: AsyncEngine, statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements.split(";\n"):
            if statement.strip():
                await connection.execute(text(statement.replace(":", "\\:")))


async def test_a_database_with_data_goes_up_down_and_up_again(engine: AsyncEngine) -> None:
    await migrate.upgrade(engine, "0001")
    await carry_out(engine, OLD_DATA)
    for _ in range(2):
        await migrate.upgrade(engine)
        async with engine.connect() as connection:
            rows = await connection.execute(text("SELECT functions FROM deployments ORDER BY version"))
            assert [tuple(row.functions) for row in rows] == [("f", "g"), ("f",)]
            suffixes = await connection.scalars(text("SELECT web_suffix FROM environments ORDER BY id"))
            assert list(suffixes) == ["", "en-2"]
        await carry_out(engine, NEW_DATA)
        await migrate.downgrade(engine, "0001")
    counts = {"apps": 1, "functions": 2, "pools": 2, "deployments": 2, "deployment_functions": 3, "outbox": 1}
    async with engine.connect() as connection:
        for table, count in counts.items():
            assert await connection.scalar(text(f"SELECT count(*) FROM {table}")) == count, table


CALLS = """
INSERT INTO calls (id, workspace, root, app_id, function_id, pool_id)
    VALUES ('fc-1', 'one', 'fc-1', 'ap-1', 'fu-1', 'po-1'), ('fc-2', 'two', 'fc-2', 'ap-1', 'fu-1', 'po-1');
INSERT INTO inputs (call_id, number, state, attempt)
    VALUES ('fc-1', 0, 3, 0), ('fc-2', 0, 3, 0), ('fc-0', 0, 3, 0);
INSERT INTO dead_letters (call_id, number, workspace, pool_id, app_id, function_id, reason, attempts,
                          readable, given_up_at)
    VALUES ('fc-1', 0, 'one', 'po-1', 'ap-1', 'fu-1', 'lost', 1, true, now());
"""
THE_SAME_CALL = """
INSERT INTO calls (id, workspace, root, app_id, function_id, pool_id)
    VALUES ('fc-1', 'two', 'fc-1', 'ap-2', 'fu-2', 'po-2');
INSERT INTO inputs (call_id, workspace, number, state, attempt) VALUES ('fc-1', 'two', 0, 4, 0);
"""


async def test_calls_get_the_workspace_into_their_key_and_lose_it_again(engine: AsyncEngine) -> None:
    await migrate.upgrade(engine, "0008")
    await carry_out(engine, CALLS)
    await migrate.upgrade(engine)
    await carry_out(engine, THE_SAME_CALL)
    query = "SELECT call_id, workspace, state FROM inputs ORDER BY call_id, workspace"
    async with engine.connect() as connection:
        rows = [tuple(row) for row in await connection.execute(text(query))]
    assert rows == [("fc-1", "one", 3), ("fc-1", "two", 4), ("fc-2", "two", 3)]
    await migrate.downgrade(engine, "0008")
    async with engine.connect() as connection:
        kept = await connection.execute(text("SELECT call_id, state FROM inputs ORDER BY call_id"))
        assert [tuple(row) for row in kept] == [("fc-1", 3), ("fc-2", 3)]
        owners = await connection.execute(text("SELECT id, workspace FROM calls ORDER BY id"))
        assert [tuple(row) for row in owners] == [("fc-1", "one"), ("fc-2", "two")]
        assert await connection.scalar(text("SELECT count(*) FROM dead_letters")) == 1


async def test_up_again_does_nothing(engine: AsyncEngine) -> None:
    await migrate.upgrade(engine)
    await migrate.upgrade(engine)
    await migrate.upgrade(engine, HEAD)
    assert await migrate.current(engine) == HEAD


async def test_of_many_that_migrate_at_once_one_works_and_the_others_wait(
    empty: Database, engine: AsyncEngine
) -> None:
    calls = (asyncio.to_thread(migrated_by_command, empty.url, "migrate") for _ in range(4))
    await asyncio.gather(*calls)
    assert await migrate.current(engine) == HEAD


def test_the_newest_revision_is_the_one_that_the_registry_looks_for() -> None:
    assert ScriptDirectory(str(scripts())).get_current_head() == HEAD
    assert fingerprint().startswith(f"{HEAD}-")


def migrated_by_command(url: str, *arguments: str, path: Path | None = None) -> str:
    environment = {**os.environ, "TIDEMILL_DATABASE_URL": url}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", "tidemill_registry", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


async def test_the_command_goes_up_and_down(empty: Database, engine: AsyncEngine) -> None:
    migrated_by_command(empty.url, "migrate")
    assert await migrate.current(engine) == HEAD
    migrated_by_command(empty.url, "downgrade", "base")
    assert await migrate.current(engine) is None
    migrated_by_command(empty.url, "migrate", HEAD)
    assert await migrate.current(engine) == HEAD


async def test_an_installed_package_brings_its_migrations_along(
    empty: Database, engine: AsyncEngine, folder: Path
) -> None:
    """Builds the package from the source tree with the rule of `pyproject.toml` for wheels."""
    import tomllib

    root = scripts().parent
    rules = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert rules["force-include"] == {"migrations": "tidemill_registry/migrations"}
    package = folder / "installed" / "tidemill_registry"
    await asyncio.to_thread(_copy, root / "services/registry/tidemill_registry", package)
    await asyncio.to_thread(_copy, root / "migrations", package / "migrations")
    await asyncio.to_thread(migrated_by_command, empty.url, "migrate", path=package.parent)
    assert await migrate.current(engine) == HEAD
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM apps")) == 0


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def test_no_revision_depends_on_what_the_models_say_now() -> None:
    for script in (scripts() / "versions").glob("*.py"):
        assert not re.search(r"tidemill", script.read_text()), script.name
