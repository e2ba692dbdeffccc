"""Handles as callers get them: with URLs, and only when NATS knows the pools that they lead to."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._wire.apps import AppDetails, FunctionsPublished, GetApp, PublishFunctions
from tidemill._wire.control import FunctionHandle, GetFunction
from tidemill._wire.deploying import (
    AppDeployed,
    DeployApp,
    FindFunctions,
    FunctionInfo,
    FunctionPage,
    RollbackApp,
    RolloverApp,
)
from tidemill._wire.variants import GetUrlVariant, GetVariant
from tidemill_registry import deployments, lookups, publishing, variants
from tidemill_registry.database import Clock
from tidemill_registry.outbox import Publisher
from tidemill_registry.routes import Urls
from tidemill_registry.warming import Warming

Change = Callable[..., Awaitable[AppDeployed]]


class Handles:
    """Finds and makes what is called."""

    def __init__(
        self, engine: AsyncEngine, publisher: Publisher, urls: Urls, clock: Clock, warming: Warming
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._urls = urls
        self._clock = clock
        self._warming = warming

    # --- made

    async def publish(self, workspace: str, request: PublishFunctions, by: str) -> FunctionsPublished:
        """Make or replace the functions of an app."""
        await self._warming.before_publishing(workspace, request)
        published = await publishing.publish(self._engine, workspace, request, self._clock, by)
        await self._publisher.published()
        return FunctionsPublished(self._urls.all_told(published.handles))

    async def deploy(self, workspace: str, request: DeployApp, by: str) -> AppDeployed:
        """Make the next version of an app, which serves once its containers are ready."""
        await self._warming.before_deploying(workspace, request)
        return await self._told(deployments.deploy, workspace, request, by)

    async def roll_back(self, workspace: str, request: RollbackApp, by: str) -> AppDeployed:
        """Make a version of an earlier one's functions, which serves once its containers are ready."""
        await self._warming.before_rolling_back(workspace, request)
        return await self._told(deployments.roll_back, workspace, request, by)

    async def roll_over(self, workspace: str, request: RolloverApp, by: str) -> AppDeployed:
        """Make a version of the same functions in new containers."""
        return await self._told(deployments.roll_over, workspace, request, by)

    async def _told(self, change: Change, workspace: str, request: Any, by: str) -> AppDeployed:
        """Answer when NATS knows what was changed: callers' demand must find it."""
        answer = await change(self._engine, workspace, request, self._clock, by)
        await self._publisher.published()
        return replace(answer, handles=self._urls.all_told(answer.handles))

    # --- found

    async def get_function(self, workspace: str, request: GetFunction) -> FunctionHandle:
        """Return the handle of a function that is deployed."""
        handle, pending = await lookups.get_function(self._engine, workspace, request)
        if pending:  # it was deployed a moment ago: nobody is to call a pool that is not there
            await self._publisher.published()
        if request.like and (given := await variants.given(self._engine, handle.function_id, request.like)):
            variant = await self.get_variant(workspace, replace(given, pool=handle.pool))
            handle = replace(variant, parameters=())  # it has them
        return self._urls.told(handle)

    async def get_app(self, workspace: str, request: GetApp) -> AppDetails:
        """Return an app with the handles of its present functions."""
        details = await lookups.get_app(self._engine, workspace, request)
        return replace(details, handles=self._urls.all_told(details.handles))

    async def find_functions(self, workspace: str, request: FindFunctions) -> FunctionPage:
        """Return a page of present functions."""
        page = await lookups.find_functions(self._engine, workspace, request)
        return replace(page, functions=tuple(map(self._located, page.functions)))

    def _located(self, info: FunctionInfo) -> FunctionInfo:
        """Return a function with URLs in the place of labels."""
        urls = {method: url for method, label in info.web_urls.items() if (url := self._urls.of(label))}
        return replace(info, web_url=urls.pop("", None), web_urls=urls)

    async def get_variant(self, workspace: str, request: GetVariant) -> FunctionHandle:
        """Return the handle of a function with options or parameters of a caller."""
        return await self._variant(workspace, request, of_url=False)

    async def get_url_variant(self, workspace: str, request: GetUrlVariant) -> FunctionHandle:
        """Return the handle of a class with parameters that came with a URL."""
        return await self._variant(workspace, GetVariant(request.pool, request.parameters), of_url=True)

    async def _variant(self, workspace: str, request: GetVariant, *, of_url: bool) -> FunctionHandle:
        handle, pending = await variants.get(self._engine, workspace, request, self._clock, of_url=of_url)
        if pending:
            await self._publisher.published()
        return self._urls.told(handle)
