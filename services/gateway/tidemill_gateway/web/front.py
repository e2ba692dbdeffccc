"""The ASGI application that stands in front: requests to web functions go by here, all others to the API.

<label>.<domain>/...      by host
.../f/<label>/...         by path, for clients that cannot resolve the former
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from tidemill import exception
from tidemill_common.logging import Logger
from tidemill_gateway import problems
from tidemill_gateway.admission import Admission
from tidemill_gateway.broker import Broker
from tidemill_gateway.decisions import request_id
from tidemill_gateway.problems import Problem
from tidemill_gateway.proxy_auth import without_secrets
from tidemill_gateway.sessions import Sessions
from tidemill_gateway.web import feeds, http, once, sockets
from tidemill_gateway.web.calls import Inbox, WebCall
from tidemill_gateway.web.routes import Routes, Target, label_of
from tidemill_gateway.web.sets import Sets

NOT_THERE = "there is no web function at this address"


class Front:
    """Routes requests."""

    def __init__(
        self,
        rest: ASGIApp,
        broker: Broker,
        routes: Routes,
        sets: Sets,
        admission: Admission,
        sessions: Sessions,
        inbox: Inbox,
        kept: feeds.Feeds,
        log: Logger,
        domain: str,
    ) -> None:
        self._rest = rest
        self._broker = broker
        self._routes = routes
        self._sets = sets
        self._admission = admission
        self._sessions = sessions
        self._inbox = inbox
        self._feeds = kept
        self._log = log
        self._suffix = b"." + domain.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket."""
        if scope["type"] == "lifespan":
            return
        try:
            label, root_path = self._label(scope)
            if label is None:
                await self._others(scope, receive, send)
                return
            self._broker.check()
            target = self._routes.find(label) or await self._find_soon(label)
            scope, token = await self._admit(target, scope)
            if target.route.parameters:
                async with self._sets.target(target, scope["query_string"]) as target:
                    await self._pass(target, root_path, token, scope, receive, send)
            else:
                await self._pass(target, root_path, token, scope, receive, send)
        except Problem as problem:
            await _answer(problem, scope, receive, send)
        except exception.Error as error:
            await _answer(problems.of_error(error), scope, receive, send)

    async def _pass(
        self, target: Target, root_path: str, token: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Pass a request on that was admitted."""
        if (key := once.key_of(scope)) is not None:
            session = await self._sessions.of(target.route.workspace)
            await once.serve(session, target, key, root_path, scope, receive, send)
            return
        if (event := feeds.last_id(scope)) is not None:
            requester = feeds.requester(target.route, scope, token)
            async with self._broker.needed():
                found = await self._feeds.find(target.route.workspace, requester, event)
            if found is not None:
                await http.resume(found, self._feeds, receive, send)
                return
        call = await self._call(target)
        if scope["type"] == "http":
            await http.serve(
                call, target.route, root_path, scope, receive, send, feeds=self._feeds, token=token
            )
        else:
            await sockets.serve(call, target.route, root_path, scope, receive, send)

    def _label(self, scope: Scope) -> tuple[str | None, str]:
        """Return the label that a request is for, None for none, and the path that leads to it."""
        label, by_path = label_of(scope.get("raw_path") or b"", scope["headers"], self._suffix)
        return label, f"/f/{label}" if by_path else ""

    async def _find_soon(self, label: str) -> Target:
        """Return where a label leads that is not known yet. Raises `Problem`."""
        async with self._broker.needed():
            target = await self._routes.find_soon(label)
        if target is None:
            raise Problem(404, "not_found", NOT_THERE)
        return target

    async def _admit(self, target: Target, scope: Scope) -> tuple[Scope, str]:
        """Refuse a request, before anything is queued for it, or return it and the proxy token's id.

        Raises `Problem`.
        """
        token = await self._admission.admit(target.route, scope["headers"])
        if token:
            scope = {**scope, "headers": without_secrets(scope["headers"])}
        return scope, token

    async def _call(self, target: Target) -> WebCall:
        session = await self._sessions.of(target.route.workspace)
        session.caller.on_failing = self._inbox.on_failing
        return WebCall(self._inbox, session.caller, target)

    async def _others(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._rest(scope, receive, send)
        else:
            raise Problem(404, "not_found", NOT_THERE)


async def _answer(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    headers = dict(scope["headers"])
    found = request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
    if scope["type"] == "http":
        await problems.response(problem, found)(scope, receive, send)
    else:
        await sockets.refuse(problem, found, send)
