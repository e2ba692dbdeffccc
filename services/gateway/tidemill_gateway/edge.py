"""What every request to the API passes first: an id, bounds, a token, and a last net for errors."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidemill import exception
from tidemill_common.logging import Logger
from tidemill_gateway import decisions, problems
from tidemill_gateway.identity import Tokens
from tidemill_gateway.problems import Problem
from tidemill_gateway.sessions import Sessions

BODY_TIMEOUT = 30.0  # seconds without a piece of a request's body
MAX_BODY = 1 << 20  # bytes of a body that the framework reads
AT_ONCE = 4_096  # requests, those included that wait for results


class Edge:
    """An ASGI application around the API's own.

    `public` are the paths that need no token. In the scope's state it leaves `request_id`, `session` and
    the id of the `token`.
    """

    def __init__(
        self, app: ASGIApp, tokens: Tokens, sessions: Sessions, log: Logger, public: frozenset[str]
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._sessions = sessions
        self._log = log
        self._public = public
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send)
        self._under_way += 1
        try:
            if self._under_way > AT_ONCE:
                raise exception.ServiceError("too many requests at once", hint="try again in a moment")
            if _path(scope) not in self._public:
                authorization = exchange.headers.get(b"authorization", b"").decode("latin-1")
                token = decisions.credentials(authorization)
                workspace = await self._tokens.workspace(token)
                assert token is not None  # else there would be no workspace
                exchange.state["token"] = token[0]
                exchange.state["session"] = await self._sessions.of(workspace, token[0])
            await self._app(scope, exchange.receive, exchange.send)
        except Problem as problem:
            await exchange.answer(problem)
        except exception.Error as error:
            await exchange.answer(problems.of_error(error))
        except Exception as error:
            self._log.exception("a request failed", path=scope["path"], request=exchange.id)
            await exchange.answer(Problem(500, "internal", f"the request failed: {type(error).__name__}"))
        finally:
            self._under_way -= 1


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = dict(scope["headers"])
        self.id = decisions.request_id(self.headers.get(b"x-request-id", b"").decode("latin-1"))
        self.state: MutableMapping[str, Any] = scope.setdefault("state", {})
        self.state["request_id"] = self.id
        self.state["max_body"] = MAX_BODY
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self._body_ended = False
        self._size = 0

    async def receive(self) -> Message:
        """Return the next piece of the body, within its bounds."""
        if self._body_ended:
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "timeout", f"no piece of the body came for {BODY_TIMEOUT:g} s") from None
        self._size += len(message.get("body", b""))
        self._body_ended = not message.get("more_body", False)
        if self._size > self.state["max_body"]:
            raise Problem(413, "too_large", f"the body is above {self.state['max_body']:,} bytes")
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the request's id."""
        if message["type"] == "http.response.start":
            self._started = True
            message["headers"] = [*message["headers"], (b"x-request-id", self.id.encode())]
        await self._send(message)

    async def answer(self, problem: Problem) -> None:
        """Answer with a problem, unless the answer has begun already."""
        if not self._started:
            await problems.response(problem, self.id)(self._scope, self._receive, self.send)


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
