"""The gateway: HTTP in front of the functions."""

from typing import TYPE_CHECKING

from tidemill_common.service import Context
from tidemill_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from tidemill_gateway.rate_limits import RateLimits
    from tidemill_gateway.server import HttpServer
    from tidemill_gateway.sessions import Sessions


class Gateway:
    """The gateway's service."""

    name = "gateway"

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self._server: HttpServer | None = None
        self._sessions: Sessions | None = None
        self._limits: RateLimits | None = None

    async def start(self, context: Context) -> str:
        """Listen; return the address."""
        # FastAPI takes a fifth of a second to import: not before the process answers /healthz.
        from tidemill_gateway.admission import Admission
        from tidemill_gateway.api.application import PREFIX, PUBLIC, new_api
        from tidemill_gateway.app import new_app
        from tidemill_gateway.broker import Broker
        from tidemill_gateway.edge import Edge
        from tidemill_gateway.handles import Handles
        from tidemill_gateway.identity import Tokens
        from tidemill_gateway.proxy_auth import ProxyTokens
        from tidemill_gateway.rate_limits import RateLimits
        from tidemill_gateway.server import HttpServer
        from tidemill_gateway.sessions import Sessions
        from tidemill_gateway.web.calls import Inbox
        from tidemill_gateway.web.feeds import Feeds
        from tidemill_gateway.web.front import Front
        from tidemill_gateway.web.refusals import Refusals
        from tidemill_gateway.web.routes import Routes
        from tidemill_gateway.web.sets import Sets

        broker, handles = Broker(context.bus), Handles()
        self._sessions = Sessions(context.bus, broker)
        await handles.listen(context.bus)
        self._limits = limits = RateLimits(context.bus, context.log)
        proxy_tokens = ProxyTokens(context.bus, context.log)
        context.tasks.create_task(limits.run(), name="rate limits")
        context.tasks.create_task(proxy_tokens.run(), name="proxy tokens")
        admission = Admission(limits, proxy_tokens)
        inner = new_api(context.stopping, handles, admission)
        api = Edge(
            inner,
            Tokens(context.bus),
            self._sessions,
            context.log,
            PUBLIC,
        )
        app = new_app(context.health, api, PREFIX)
        inbox, routes = Inbox(context.bus, broker), Routes(context.bus, context.log)
        await inbox.listen()
        feeds = Feeds(context.bus, context.tasks.create_task, context.log)
        await feeds.listen()
        context.tasks.create_task(routes.watch(), name="routes")
        sets = Sets(self._sessions, context.log)
        context.tasks.create_task(sets.run(), name="sets of parameters")
        domain = self.settings.gateway_domain
        front = Front(app, broker, routes, sets, admission, self._sessions, inbox, feeds, context.log, domain)
        settings = self.settings
        refusals = Refusals(routes, limits, domain)
        self._server = HttpServer(
            front, refusals, settings.gateway_host, settings.gateway_port, settings.gateway_trusted_proxies
        )
        context.tasks.create_task(self._server.run(), name="http")
        return self._server.address

    async def ready(self) -> str | None:
        """Tell whether it listens: there is nothing else that it needs yet."""
        return None if self._server is not None else "not listening yet"

    async def drain(self) -> None:
        """Finish the requests under way."""
        if self._server is not None:
            await self._server.stop()
        if self._limits is not None:
            await self._limits.close()
        if self._sessions is not None:
            await self._sessions.close()
