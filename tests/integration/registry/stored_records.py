"""The tables as one workspace of them is seen, without NATS around them."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._wire.deploying import AppDeployed, DeployApp
from tidemill._wire.specs import FunctionSpec, Source
from tidemill_registry import deployments
from tidemill_registry.database import database_clock


def spec(name: str = "f", **fields: Any) -> FunctionSpec:
    return FunctionSpec(name=name, source=Source(module="m", qualname=name), **fields)


class Records:
    """The tables, as a workspace's."""

    def __init__(self, engine: AsyncEngine, workspace: str) -> None:
        self.engine = engine
        self.workspace = workspace

    async def deploy(self, *functions: FunctionSpec, name: str = "app", **fields: Any) -> AppDeployed:
        request = DeployApp(name, functions, **fields)
        return await deployments.deploy(self.engine, self.workspace, request, database_clock)

    async def sql(self, query: str, **parameters: Any) -> Any:
        """Carry out a statement and return its first value, if it has any."""
        async with self.engine.begin() as connection:
            result = await connection.execute(text(query), parameters)
            return result.scalar() if result.returns_rows else None
