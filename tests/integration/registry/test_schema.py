"""Wrong states cannot be stored, whatever the code above does."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from tidemill_local.database import Database

SETUP = """
INSERT INTO workspaces (id, name) VALUES ('ws-1', 'w');
INSERT INTO environments (id, workspace_id, name) VALUES ('en-1', 'ws-1', 'main');
INSERT INTO apps (id, environment_id, name, state) VALUES ('ap-1', 'en-1', 'one', 'deployed');
INSERT INTO apps (id, environment_id, name, state) VALUES ('ap-2', 'en-1', 'two', 'deployed');
INSERT INTO functions (id, app_id, name) VALUES ('fu-1', 'ap-1', 'f'), ('fu-1b', 'ap-1', 'g'),
    ('fu-2', 'ap-2', 'f'), ('fu-2b', 'ap-2', 'g');
INSERT INTO pools (id, app_id, function_id, digest, capability, shard, record)
    VALUES ('po-1', 'ap-1', 'fu-1', decode(repeat('aa', 32), 'hex'), 'cpu', 0, ''),
           ('po-2', 'ap-2', 'fu-2', decode(repeat('aa', 32), 'hex'), 'cpu', 0, '');
INSERT INTO deployments (id, app_id, version) VALUES ('de-1', 'ap-1', 1), ('de-2', 'ap-2', 1);
INSERT INTO secrets (id, environment_id, name, key_id, ciphertext, keys)
    VALUES ('st-1', 'en-1', 's', 'k', '', '{}');
"""
SERVED = "INSERT INTO deployment_functions (app_id, version, function_id, pool_id) VALUES "
POOL = "INSERT INTO pools (id, app_id, function_id, digest, capability, shard, record) VALUES "
VERSION = "INSERT INTO deployments (id, app_id, version, tag, strategy, rolled_back_to) VALUES "
SECRET = "INSERT INTO secrets (id, environment_id, name, fingerprint, key_id, ciphertext, keys) VALUES "
LIMIT = "INSERT INTO rate_limits (workspace_id, kind, environment, name, rate, burst) VALUES "
SCHEDULE = "INSERT INTO schedules (id, app_id, function_id, record, version, pool_id) VALUES "
APP = "INSERT INTO apps (id, environment_id, name, state, heartbeat_at, stopped_at) VALUES "


@pytest.fixture(scope="module")
def server() -> Iterator[Database]:
    """One server for all tests here: each works in a transaction that is rolled back."""
    with tempfile.TemporaryDirectory(prefix="tm-", ignore_cleanup_errors=True) as folder:
        database = Database(Path(folder), durable=False)
        asyncio.run(database.start())
        yield database
        database.kill()


@pytest.fixture
async def connection(server: Database) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(server.url)
    async with engine.connect() as connection:
        for statement in SETUP.split(";\n"):
            if statement.strip():
                await connection.execute(text(statement))
        yield connection
    await engine.dispose()


async def test_an_app_in_order_can_be_stored(connection: AsyncConnection) -> None:
    await connection.execute(text(APP + "('ap-3', 'en-1', NULL, 'ephemeral', now(), NULL)"))
    await connection.execute(text(APP + "('ap-4', 'en-1', 'one', 'ephemeral', now(), NULL)"))
    await connection.execute(text(APP + "('ap-5', 'en-1', 'one', 'stopped', NULL, now())"))
    await connection.execute(text(SERVED + "('ap-1', 1, 'fu-1', 'po-1')"))


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        (APP + "('ap-3', 'en-1', 'x', 'sleeping', NULL, NULL)", "ck_apps_state_known"),
        (APP + "('ap-3', 'en-1', 'x', 'ephemeral', NULL, NULL)", "ck_apps_ephemeral_has_heartbeat"),
        (APP + "('ap-3', 'en-1', 'x', 'stopped', NULL, NULL)", "ck_apps_stopped_has_time"),
        (APP + "('ap-3', 'en-1', 'x', 'detached', NULL, now())", "ck_apps_stopped_has_time"),
        (APP + "('ap-3', 'en-1', NULL, 'deployed', NULL, NULL)", "ck_apps_deployed_has_name"),
        (APP + "('ap-3', 'en-1', 'one', 'deployed', NULL, NULL)", "uq_apps_deployed_name"),
        (APP + "('ap-3', 'en-9', 'x', 'detached', NULL, NULL)", "fk_apps_environment_id"),
        ("INSERT INTO workspaces (id, name) VALUES ('ws-2', 'w')", "uq_workspaces_name"),
        ("INSERT INTO workspaces (id, name) VALUES ('ws-2', '')", "ck_workspaces_name_given"),
        (
            "INSERT INTO environments (id, workspace_id, name) VALUES ('en-2', 'ws-1', 'main')",
            "uq_environments_workspace_id_name",
        ),
        ("INSERT INTO functions (id, app_id, name) VALUES ('fu-9', 'ap-1', 'f')", "uq_functions_app_id_name"),
        ("INSERT INTO functions (id, app_id, name) VALUES ('fu-9', 'ap-9', 'f')", "fk_functions_app_id"),
        (
            POOL + "('po-9', 'ap-1', 'fu-2b', decode(repeat('bb', 32), 'hex'), 'cpu', 0, '')",
            "fk_pools_app_id_function_id",
        ),
        (
            POOL + "('po-9', 'ap-1', 'fu-1', decode(repeat('aa', 32), 'hex'), 'cpu', 0, '')",
            "uq_pools_function_id_digest",
        ),
        (
            POOL + "('po-9', 'ap-1', 'fu-1', decode(repeat('bb', 32), 'hex'), 'cpu', 0, '')",
            "uq_pools_current",
        ),
        (POOL + "('po-9', 'ap-1', 'fu-1b', 'short', 'cpu', 0, '')", "ck_pools_digest_is_sha256"),
        (
            POOL + "('po-9', 'ap-1', 'fu-1b', decode(repeat('bb', 32), 'hex'), 'cpu', -1, '')",
            "ck_pools_shard_counts",
        ),
        (
            "INSERT INTO deployments (id, app_id, version) VALUES ('de-9', 'ap-1', 1)",
            "uq_deployments_app_id_version",
        ),
        (
            "INSERT INTO deployments (id, app_id, version) VALUES ('de-9', 'ap-1', 0)",
            "ck_deployments_version_counts",
        ),
        (
            SERVED + "('ap-1', 1, 'fu-2', 'po-2')",
            "fk_deployment_functions_app_id_function_id",
        ),
        (
            SERVED + "('ap-1', 1, 'fu-1', 'po-2')",
            "fk_deployment_functions_function_id_pool_id",
        ),
        (
            SERVED + "('ap-1', 2, 'fu-1', 'po-1')",
            "fk_deployment_functions_app_id_version",
        ),
        (VERSION + f"('de-9', 'ap-1', 2, '{'x' * 51}', 'rolling', NULL)", "ck_deployments_tag_is_short"),
        (VERSION + "('de-9', 'ap-1', 2, '', 'sudden', NULL)", "ck_deployments_strategy_known"),
        (VERSION + "('de-9', 'ap-1', 2, '', 'rolling', 2)", "ck_deployments_rolled_back_to_earlier"),
        ("UPDATE pools SET served_spec = 'x' WHERE id = 'po-1'", "ck_pools_present_needs_no_spec"),
        (
            "INSERT INTO environments (id, workspace_id, name) VALUES ('en-2', 'ws-1', 'dev')",
            "uq_environments_workspace_id_web_suffix",
        ),
        (LIMIT + "('ws-1', 'planet', '', 'x', 1, 1)", "ck_rate_limits_kind_known"),
        (LIMIT + "('ws-1', 'app', 'main', '', 1, 1)", "ck_rate_limits_named_unless_workspace"),
        (LIMIT + "('ws-1', 'workspace', '', '', 0, 1)", "ck_rate_limits_lets_some_through"),
        (SECRET + "('st-9', 'en-1', 's', NULL, 'k', '', '{}')", "uq_secrets_environment_id_name"),
        (SECRET + "('st-9', 'en-1', NULL, NULL, 'k', '', '{}')", "ck_secrets_named_or_not"),
        (SECRET + "('st-9', 'en-1', NULL, 'short', 'k', '', '{}')", "ck_secrets_fingerprint_is_sha256"),
        ("INSERT INTO pool_secrets VALUES ('po-1', 'st-9')", "fk_pool_secrets_secret_id"),
        (
            SCHEDULE + "('sc-9', 'ap-1', 'fu-1b', '{}', 1, 'po-1')",
            "fk_schedules_function_id_pool_id",
        ),
        (
            "INSERT INTO outbox (kind, target, key, body) VALUES ('timer', 't', 'k', 'x')",
            "ck_outbox_key_fits_kind",
        ),
        (
            "INSERT INTO outbox (kind, target, key, body) VALUES ('untimer', 't', '', 'x')",
            "ck_outbox_body_fits_kind",
        ),
        (
            "INSERT INTO outbox (kind, target, key, body) VALUES ('shout', 't', 'k', 'x')",
            "ck_outbox_kind_known",
        ),
        (
            "INSERT INTO outbox (kind, target, key, body) VALUES ('put', 't', 'k', NULL)",
            "ck_outbox_body_fits_kind",
        ),
        (
            "INSERT INTO outbox (kind, target, key, body) VALUES ('delete', 't', 'k', 'x')",
            "ck_outbox_body_fits_kind",
        ),
        (
            "INSERT INTO outbox (kind, target, key, body) VALUES ('put', 't', '', 'x')",
            "ck_outbox_key_fits_kind",
        ),
    ],
)
async def test_a_state_that_must_not_be_is_refused(
    connection: AsyncConnection, statement: str, constraint: str
) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        await connection.execute(text(statement))


async def test_nothing_of_a_forgotten_app_stays_behind(connection: AsyncConnection) -> None:
    await connection.execute(text(SERVED + "('ap-1', 1, 'fu-1', 'po-1')"))
    await connection.execute(text("DELETE FROM apps WHERE id = 'ap-1'"))
    for table in ("functions", "pools", "deployments", "deployment_functions"):
        query = text(f"SELECT count(*) FROM {table} WHERE app_id = 'ap-1'")
        assert await connection.scalar(query) == 0, table
