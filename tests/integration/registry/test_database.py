"""The PostgreSQL that a stack brings along."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from tidemill_local import database_identity
from tidemill_local.database import Database, DatabaseError
from tidemill_local.database_cluster import Cluster

OWNER = """
import asyncio, sys
from pathlib import Path
from tidemill_local.database import Database
async def main():
    database = Database(Path(sys.argv[1]), durable=False)
    await database.start()
    print(database.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def connect(url: str) -> "asyncpg.Connection[Any]":
    return await asyncpg.connect(url.replace("+asyncpg", ""))


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def ask(database: Database, query: str) -> Any:
    connection = await connect(database.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_a_new_database_has_the_tables_of_the_registry(database: Database) -> None:
    assert await ask(database, "SELECT count(*) FROM apps") == 0


async def test_what_is_stored_survives_a_restart_and_a_kill(database: Database) -> None:
    await ask(database, "INSERT INTO workspaces (id, name) VALUES ('ws-1', 'kept') RETURNING id")
    await database.restart()
    assert await ask(database, "SELECT name FROM workspaces") == "kept"
    await ask(database, "UPDATE workspaces SET name = 'kept too' RETURNING id")
    database.kill()
    assert database.pid is None
    await database.start()
    assert await ask(database, "SELECT name FROM workspaces") == "kept too"


async def test_another_owner_finds_the_folder_as_it_was_left(folder: Path) -> None:
    first = Database(folder / "db", durable=False)
    await first.start()
    await ask(first, "INSERT INTO workspaces (id, name) VALUES ('ws-1', 'kept') RETURNING id")
    await first.stop()
    second = Database(folder / "db", durable=True)
    await second.start()
    assert await ask(second, "SELECT name FROM workspaces") == "kept"
    await second.stop()


async def test_nobody_comes_in_without_the_password(database: Database, folder: Path) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(database.url.replace("tidemill:", "tidemill:x"))
    assert stat.S_IMODE((folder / "postgres" / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "postgres").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "postgres" / "data").stat().st_mode) == 0o700


async def test_every_database_has_a_password_of_its_own(database: Database, folder: Path) -> None:
    other = Database(folder / "other", durable=False)
    await other.start()
    assert other.url.partition("@")[0] != database.url.partition("@")[0]
    await other.stop()


async def test_it_cannot_be_reached_over_the_network(database: Database) -> None:
    assert await ask(database, "SHOW listen_addresses") == ""


async def test_a_folder_with_a_long_name_works_too(folder: Path) -> None:
    database = Database(folder / ("x" * 120), durable=False)
    await database.start()
    assert await ask(database, "SELECT 1") == 1
    socket = Path(str(await ask(database, "SHOW unix_socket_directories")).strip('"'))
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    await database.stop()
    assert not socket.exists()


async def test_a_creation_that_was_cut_off_is_begun_anew(folder: Path) -> None:
    (folder / "db" / "data").mkdir(parents=True, mode=0o700)
    (folder / "db" / "data" / "PG_VERSION").write_text("18")
    database = Database(folder / "db", durable=False)
    await database.start()
    assert await ask(database, "SELECT 1") == 1
    await database.stop()


async def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    database = Database(folder / "db", durable=False)
    await database.start()
    await database.stop()
    (folder / "db" / "data" / "PG_VERSION").write_text("11\n")
    with pytest.raises(DatabaseError, match="incompatible"):
        await database.start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
async def test_the_server_ends_when_its_owner_is_killed_and_the_next_owner_can_start(
    folder: Path, until: Callable[..., Any]
) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder / "db")], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    server = int(owner.stdout.readline())
    owner.send_signal(signal.SIGKILL)
    owner.wait(60)
    owner.stdout.close()
    database = Database(folder / "db", durable=False)
    await database.start()  # waits for the one before to be gone
    await until(lambda: not runs(server))
    assert await ask(database, "SELECT 1") == 1
    await database.stop()


@pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="only root must become somebody else"
)
def test_root_without_namespaces_runs_it_as_nobody_in_folders_that_are_only_roots(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill_local.database_cluster.own_identity", database_identity.nobody)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "inner").mkdir(mode=0o700)
    cluster = Cluster(folder / "inner" / "data", folder / "inner" / "log")
    cluster.initialize("secret")
    cluster.spawn(durable=False)
    try:
        cluster.wait_ready()
        assert cluster.process is not None
        assert psutil.Process(cluster.process.pid).uids().effective == database_identity.nobody().owner[0]  # type: ignore[index]
        cluster.execute("SELECT 1", "secret")
    finally:
        cluster.stop()
