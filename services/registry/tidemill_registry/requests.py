"""What the registry is asked, and who of it answers: the table of its requests."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from tidemill._wire import subjects
from tidemill._wire.apps import (
    AppHeartbeat,
    CreateApp,
    GetApp,
    ListApps,
    PublishFunctions,
    StopApp,
)
from tidemill._wire.autoscaling import GetAutoscaler, UpdateAutoscaler
from tidemill._wire.calls import (
    CountRequests,
    GetCall,
    GetCallGraph,
    GetDead,
    ListCalls,
    ListDead,
    ReplayDead,
)
from tidemill._wire.control import Done, GetFunction
from tidemill._wire.deploying import (
    DeployApp,
    FindApps,
    FindFunctions,
    GetTags,
    ListDeployments,
    LookupApp,
    RollbackApp,
    RolloverApp,
    SetTags,
    StopDeployed,
)
from tidemill._wire.environments import (
    CreateEnvironment,
    DeleteEnvironment,
    EnvironmentInfo,
    EnvironmentList,
    ListEnvironments,
    UpdateEnvironment,
)
from tidemill._wire.images import GetImage, GetResolution, PublishImage, PutResolution
from tidemill._wire.limits import ListLimits, RemoveLimit, SetLimit
from tidemill._wire.proxy_tokens import CreateProxyToken, ListProxyTokens, RevokeProxyToken
from tidemill._wire.schedules import ListSchedules
from tidemill._wire.secrets import (
    DeleteSecret,
    GetSecret,
    ListSecrets,
    PutAppSecret,
    PutSecret,
    RevealSecrets,
)
from tidemill._wire.specs import Autoscaling
from tidemill._wire.tokens import (
    CreateToken,
    ListTokens,
    RevokeToken,
    TokenInfo,
    TokenList,
    VerifyToken,
)
from tidemill._wire.variants import GetUrlVariant, GetVariant
from tidemill.exception import ServiceError
from tidemill_common.bus.protocol import Endpoint, ServiceBus
from tidemill_common.requests import Endpoints
from tidemill_registry import (
    autoscaling,
    deployments,
    environments,
    image_recipes,
    images,
    lookups,
    proxy_tokens,
    rate_limits,
    request_counts,
    tags,
    timetable,
)
from tidemill_registry.apps import Apps
from tidemill_registry.calls import Calls
from tidemill_registry.dead_letters import DeadLetters
from tidemill_registry.handles import Handles
from tidemill_registry.outbox import Publisher
from tidemill_registry.secrets import Secrets
from tidemill_registry.sweeping import Sweep
from tidemill_registry.tokens import Tokens

Noted = Callable[[str, Any, str], Awaitable[object]]  # a handler that is told who asks
Handler = Callable[[str, Any], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Requests:
    """Answers the registry's requests by its parts. `revoked` is called when a token was revoked."""

    engine: AsyncEngine
    bus: ServiceBus
    publisher: Publisher
    handles: Handles
    apps: Apps
    secrets: Secrets
    tokens: Tokens
    calls: Calls
    dead: DeadLetters
    sweep: Sweep
    revoked: Callable[[], None]
    public_url: str

    def endpoints(self, make: Endpoints) -> dict[str, Endpoint]:
        """Return what is answered: on the subjects of members, and on those of workers' containers."""
        noted: Sequence[tuple[str, type[Any], Noted]] = (
            ("create_app", CreateApp, self._linked(self.apps.create)),
            ("publish_functions", PublishFunctions, self.handles.publish),
            ("lookup_app", LookupApp, self._linked(self.apps.look_up)),
            ("deploy_app", DeployApp, self._linked(self.handles.deploy)),
            ("rollback_app", RollbackApp, self._linked(self.handles.roll_back)),
            ("rollover_app", RolloverApp, self._linked(self.handles.roll_over)),
            ("put_secret", PutSecret, self.secrets.put),
            ("put_app_secret", PutAppSecret, self.secrets.put_unnamed),
            ("stop_app", StopApp, self._stop_app),
            ("stop_deployed", StopDeployed, self._stop_deployed),
            ("delete_environment", DeleteEnvironment, self._delete_environment),
            ("create_token", CreateToken, self.tokens.create),
            ("revoke_token", RevokeToken, self._revoke_token),
        )
        table: Sequence[tuple[str, type[Any], Handler]] = (
            ("heartbeat", AppHeartbeat, self._heartbeat),
            ("get_function", GetFunction, self.handles.get_function),
            ("get_variant", GetVariant, self.handles.get_variant),
            ("get_url_variant", GetUrlVariant, self.handles.get_url_variant),
            ("list_apps", ListApps, partial(lookups.list_apps, self.engine)),
            ("list_schedules", ListSchedules, partial(timetable.list_schedules, self.engine, self.bus)),
            ("get_app", GetApp, self.handles.get_app),
            ("find_apps", FindApps, partial(lookups.find_apps, self.engine)),
            ("find_functions", FindFunctions, self.handles.find_functions),
            ("list_deployments", ListDeployments, partial(deployments.list_versions, self.engine)),
            ("set_tags", SetTags, partial(tags.replace, self.engine)),
            ("get_tags", GetTags, partial(tags.read, self.engine)),
            ("get_autoscaler", GetAutoscaler, partial(autoscaling.read, self.engine)),
            ("update_autoscaler", UpdateAutoscaler, self._update_autoscaler),
            ("list_environments", ListEnvironments, self._list_environments),
            ("create_environment", CreateEnvironment, partial(environments.create, self.engine)),
            ("update_environment", UpdateEnvironment, self._change_environment),
            ("get_image", GetImage, partial(image_recipes.get, self.engine)),
            ("publish_image", PublishImage, partial(image_recipes.publish, self.engine)),
            ("get_secret", GetSecret, self.secrets.get),
            ("list_secrets", ListSecrets, self.secrets.list_named),
            ("delete_secret", DeleteSecret, self.secrets.remove),
            ("list_tokens", ListTokens, self._list_tokens),
            ("create_proxy_token", CreateProxyToken, self._announced(proxy_tokens.create)),
            ("list_proxy_tokens", ListProxyTokens, partial(proxy_tokens.of, self.engine)),
            ("revoke_proxy_token", RevokeProxyToken, self._announced(proxy_tokens.revoke)),
            ("set_limit", SetLimit, self._announced(rate_limits.put)),
            ("list_limits", ListLimits, partial(rate_limits.of, self.engine)),
            ("remove_limit", RemoveLimit, self._announced(rate_limits.remove)),
            ("get_call_graph", GetCallGraph, self.calls.graph),
            ("get_call", GetCall, self.calls.get),
            ("list_calls", ListCalls, self.calls.newest),
            ("count_requests", CountRequests, partial(request_counts.count, self.engine)),
            ("list_dead", ListDead, self.dead.newest),
            ("get_dead", GetDead, self.dead.get),
            ("replay_dead", ReplayDead, self.dead.replay),
        )
        verify = make.internal("verify_token", VerifyToken, self._verify_token)
        reveal = make.endpoint("reveal_secrets", RevealSecrets, self.secrets.reveal)
        endpoints = {
            **{verb: make.noted(verb, kind, handler) for verb, kind, handler in noted},
            **{verb: make.endpoint(verb, kind, handler) for verb, kind, handler in table},
        }
        resolved = make.endpoint("get_resolution", GetResolution, partial(images.get_resolution, self.engine))
        resolve = make.endpoint("put_resolution", PutResolution, partial(images.put_resolution, self.engine))
        return {
            **{subjects.registry(subjects.EVERY, verb): endpoint for verb, endpoint in endpoints.items()},
            **{subjects.signed(subjects.EVERY, verb): endpoint for verb, endpoint in endpoints.items()},
            subjects.reveal_secrets(subjects.EVERY): reveal,
            subjects.images(subjects.EVERY, "get_resolution"): resolved,
            subjects.images(subjects.EVERY, "put_resolution"): resolve,
            subjects.internal("registry", "verify_token"): verify,
        }

    def _announced(self, change: Callable[..., Awaitable[Any]]) -> Handler:
        """Return a handler that answers when NATS knows what was changed."""

        @wraps(change)
        async def handle(workspace: str, request: Any) -> object:
            answer: object = await change(self.engine, workspace, request)
            await self.publisher.published()
            return answer

        return handle

    def _linked(self, make: Callable[..., Awaitable[Any]]) -> Noted:
        """Return a handler whose answer tells where the app is found over HTTP, if that is known."""

        @wraps(make)
        async def handle(workspace: str, request: Any, by: str) -> object:
            answer = await make(workspace, request, by)
            url = self.public_url
            return replace(answer, url=f"{url}/api/v1/apps/{answer.app_id}") if url else answer

        return handle

    async def _update_autoscaler(self, workspace: str, request: UpdateAutoscaler) -> Autoscaling:
        changed = await autoscaling.change(self.engine, workspace, request)
        await self.publisher.published()
        return changed

    async def _heartbeat(self, workspace: str, request: AppHeartbeat) -> Done:
        try:
            await self.apps.heartbeat(workspace, request.app_id)
        except ServiceError:
            self.sweep.deaf()
            raise
        return Done()

    async def _stop_app(self, workspace: str, request: StopApp, by: str) -> Done:
        await self.apps.stop(workspace, request.app_id, request.reason, by)
        await self.publisher.published()
        return Done()

    async def _stop_deployed(self, workspace: str, request: StopDeployed, by: str) -> Done:
        await self.apps.stop_named(workspace, request, by)
        await self.publisher.published()
        return Done()

    async def _list_environments(self, workspace: str, _request: ListEnvironments) -> EnvironmentList:
        return await environments.list_all(self.engine, workspace)

    async def _change_environment(self, workspace: str, request: UpdateEnvironment) -> EnvironmentInfo:
        changed = await environments.change(self.engine, workspace, request)
        await self.publisher.published()
        return changed

    async def _delete_environment(self, workspace: str, request: DeleteEnvironment, by: str) -> Done:
        await self.apps.delete_environment(workspace, request, by)
        await self.publisher.published()
        return Done()

    async def _list_tokens(self, workspace: str, request: ListTokens) -> TokenList:
        return TokenList(await self.tokens.of(workspace, include_revoked=request.include_revoked))

    async def _revoke_token(self, workspace: str, request: RevokeToken, by: str) -> Done:
        await self.tokens.revoke(workspace, request.token_id, by)
        self.revoked()
        return Done()

    async def _verify_token(self, request: VerifyToken) -> TokenInfo:
        token, is_noted = await self.tokens.verify(request.token_id, request.secret)
        if not is_noted:
            await self.tokens.note_use(token.token_id)
        return token
