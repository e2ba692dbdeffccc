"""A real PostgreSQL in a private folder, from the programs that a wheel carries.

The server listens on a Unix socket only, in its own folder (0700), and asks for a generated password.
Making and migrating a cluster takes most of a second, so a new database is a copy of a template (0.06 s)
that gets a password of its own. The server itself starts in 0.02-0.04 s.
"""

import asyncio
import os
import secrets
import shutil
from pathlib import Path

from tidemill_local.database_cluster import Cluster, DatabaseError
from tidemill_local.database_template import copy, template

__all__ = ["Database", "DatabaseError"]


class Database:
    """A PostgreSQL server that lives in `folder` and belongs to this process.

    Args:
        folder: made when it is not there; holds data, log and password. One owner at a time.
        durable: survive a power cut; off for a database that is thrown away with its stack.
        migrated: begin with the registry's tables instead of an empty database.
    """

    def __init__(self, folder: Path, *, durable: bool = True, migrated: bool = True) -> None:
        self._folder = folder.resolve()
        self._durable = durable
        self._migrated = migrated
        self._cluster = Cluster(self._folder / "data", self._folder / "log")
        self._password = ""

    @property
    def url(self) -> str:
        """The URL for SQLAlchemy with asyncpg, password included. Known once the server started."""
        return self._cluster.url(self._password)

    @property
    def pid(self) -> int | None:
        """The server's process, if it was started."""
        return self._cluster.process.pid if self._cluster.process else None

    @property
    def log(self) -> Path:
        """The file with the server's own log."""
        return self._cluster.log

    @property
    def returncode(self) -> int | None:
        """How the server ended by itself; None while it runs."""
        return self._cluster.process.poll() if self._cluster.process else None

    async def start(self) -> None:
        """Start the server and return when it takes connections.

        Call it from the main thread: then, on Linux, the server also ends when this process is killed.
        Raises `DatabaseError`.
        """
        fresh = await asyncio.to_thread(self._prepare)
        self._cluster.spawn(durable=self._durable)
        try:
            await asyncio.to_thread(self._cluster.wait_ready)
            if fresh is not None:
                await asyncio.to_thread(self._set_password, fresh)
        except BaseException:
            self._cluster.kill()
            raise

    async def stop(self) -> None:
        """End the server in order: connections are closed, data is written."""
        await asyncio.to_thread(self._cluster.stop)

    async def restart(self) -> None:
        """Stop and start the server."""
        await self.stop()
        await self.start()

    def kill(self) -> None:
        """End the server as a crash would."""
        self._cluster.kill()

    def _prepare(self) -> str | None:
        """Make what is missing; return the copied password of a database that has none of its own yet.

        The password file is written last: a folder without it never served, and is made anew.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._password_file.exists():
            self._password = self._password_file.read_text()
            return None
        shutil.rmtree(self._cluster.data, ignore_errors=True)
        source = template(migrated=self._migrated, lean=not self._durable)
        copy(source.data, self._cluster.data)
        self._cluster.own(self._cluster.data)
        if self._durable:
            self._cluster.sync()
        return source.password

    def _set_password(self, copied: str) -> None:
        password = secrets.token_urlsafe(24)
        self._cluster.execute(f"ALTER ROLE CURRENT_USER PASSWORD '{password}'", copied)
        self._keep(password)
        self._password = password

    def _keep(self, password: str) -> None:
        """Write the password file, whole or not at all."""
        draft = self._password_file.with_suffix(".new")
        draft.touch(mode=0o600)
        with draft.open("w") as file:
            file.write(password)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self._password_file)

    @property
    def _password_file(self) -> Path:
        return self._folder / "password"
