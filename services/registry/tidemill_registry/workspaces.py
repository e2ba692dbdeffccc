"""Workspaces: whoever shares apps, secrets and limits."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tidemill._wire import subjects
from tidemill.exception import InvalidError, NotFoundError
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


async def find(connection: AsyncConnection, name: str) -> str:
    """Return the id of a workspace; `NotFoundError`."""
    found = await connection.scalar(select(Workspace.id).where(Workspace.name == name))
    if found is None:
        raise NotFoundError(f"there is no workspace {name!r}", hint=environments.MAKE_WORKSPACE)
    return found


def checked(name: str) -> str:
    """Return a name that a workspace can have; `InvalidError`."""
    try:
        return subjects.workspace(name)
    except ValueError as error:
        hint = "names are up to 32 lower-case letters, digits and '-'"
        raise InvalidError(str(error), hint=hint) from error
