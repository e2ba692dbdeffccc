"""Workspaces: whoever shares apps, secrets and limits."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._wire import subjects
from tidemill.exception import InvalidError
from tidemill_registry import environments
from tidemill_registry.database import transaction
from tidemill_registry.schema import Workspace


class Workspaces:
    """All workspaces of this registry."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, name: str) -> None:
        """Make a workspace and its first environment, if they are not there.

        Its streams are to be there before: what happens in a workspace without them could not be told.
        """
        await environments.prepare(self._engine, checked(name))

    async def names(self) -> list[str]:
        """Return the names of all workspaces."""
        async with transaction(self._engine) as connection:
            return list(await connection.scalars(select(Workspace.name).order_by(Workspace.name)))


def checked(name: str) -> str:
    """Return a name that a workspace can have; `InvalidError`."""
    try:
        return subjects.workspace(name)
    except ValueError as error:
        hint = "names are up to 32 lower-case letters, digits and '-'"
        raise InvalidError(str(error), hint=hint) from error
