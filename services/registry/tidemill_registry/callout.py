"""Auth callout: NATS asks here who somebody is, and what they may do.

    client ──CONNECT(token id, secret)──> NATS ──$SYS.REQ.USER.AUTH──> registry ──> tokens
                                           │ <───────── a signed user: account, allow-lists, until when

Every replica answers, each request is answered by one. A question that cannot be answered now (the database
is away) gets no answer: the server then closes the connection, and whoever asked tries again. A refusal is
final; its reason is for the log, whoever is refused hears only that.
"""

import asyncio
import math
import time
from contextlib import suppress
from typing import Any

from prometheus_client import Counter

from tidemill._bus.protocol import BusError, Message
from tidemill._wire.tokens import MEMBER, TokenInfo
from tidemill.exception import AuthError, Error, ServiceError
from tidemill_common import identities, metrics
from tidemill_common.bus.protocol import ServiceBus
from tidemill_common.identities import Rights
from tidemill_common.logging import Logger
from tidemill_registry import jwt
from tidemill_registry.database import UNREACHABLE
from tidemill_registry.tokens import Tokens

SUBJECT, QUEUE = "$SYS.REQ.USER.AUTH", "registry"
RESPOND_WITHIN = 120_000_000_000  # nanoseconds for an answer to what was asked of a member
AT_ONCE = 1_000  # connections that are being looked at; more are left to another replica, or tried again


class Callout:
    """Answers the server's questions."""

    def __init__(
        self, bus: ServiceBus, tokens: Tokens, issuer: jwt.Issuer, log: Logger, registry: metrics.Registry
    ) -> None:
        self._bus = bus
        self._tokens = tokens
        self._issuer = issuer
        self._log = log
        self._asked: set[asyncio.Task[None]] = set()
        self._count = Counter(
            "tidemill_authentications", "Connections that were asked about.", ["outcome"], registry=registry
        )

    async def start(self) -> None:
        """Answer from now on."""
        self._subscription = await self._bus.subscribe(SUBJECT, self._on_question, queue=QUEUE)

    async def stop(self) -> None:
        """Take no more questions, and answer those that were asked."""
        with suppress(BusError):
            await self._subscription.drain()
        if self._asked:
            await asyncio.wait(self._asked)

    def _on_question(self, message: Message) -> None:
        if len(self._asked) >= AT_ONCE:
            self._count.labels("busy").inc()
            return
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _answer(self, message: Message) -> None:
        try:
            asked = jwt.read(message.data.decode())["nats"]
            server, options = asked["server_id"]["id"], asked["connect_opts"]
            user = asked["user_nkey"]
        except (ValueError, KeyError, TypeError) as error:
            self._count.labels("unreadable").inc()
            self._log.error("a question of NATS cannot be read", error=str(error))
            return
        name = str(options.get("user", ""))
        try:
            token, is_noted = await self._tokens.verify(name, str(options.get("pass", "")))
        except AuthError as error:
            self._refused(name, asked, str(error))
            self._reply(message, server, user, {"error": str(error)})
        except (ServiceError, Error, *UNREACHABLE) as error:
            self._count.labels("unanswered").inc()
            self._log.warning("nobody can be let in now", error=str(error))
        else:
            self._count.labels("accepted").inc()
            self._reply(message, server, user, {"jwt": self._issuer.sign(user_claims(token, user))})
            if not is_noted:
                await self._note_use(token.token_id)

    def _refused(self, name: str, asked: dict[str, Any], reason: str) -> None:
        """Say who was refused. What is no id of a token may be a secret in the wrong place."""
        self._count.labels("refused").inc()
        client = asked.get("client_info", {})
        shown = name[:80] if name.startswith(("ak-", "wk-", "wg-")) else "(not the id of a token)"
        self._log.warning("refused a connection", token=shown, reason=reason, host=client.get("host", ""))

    def _reply(self, message: Message, server: str, user: str, answer: dict[str, str]) -> None:
        claims = {
            "aud": server,
            "sub": user,
            "iat": int(time.time()),
            "nats": {"type": "authorization_response", "version": 2, **answer},
        }
        with suppress(BusError):  # then the server is away, and so is whoever asked it
            self._bus.publish(message.reply, self._issuer.sign(claims).encode())

    async def _note_use(self, token_id: str) -> None:
        try:
            await self._tokens.note_use(token_id)
        except (Error, *UNREACHABLE) as error:
            self._log.debug("the use of a token is not noted", error=str(error))


def user_claims(token: TokenInfo, user: str) -> dict[str, Any]:
    """Return the user that a token becomes. Its connection ends in the second in which the token expires.

    Not before: who comes again then is to hear that it has.
    """
    is_member = token.kind == MEMBER
    if is_member:
        rights = identities.member(token.workspace, token.token_id)
    else:
        rights = identities.worker(token.kind, token.token_id)
    claims: dict[str, Any] = {
        "aud": identities.MEMBERS if is_member else identities.PLATFORM,
        "sub": user,
        "name": token.token_id,
        "iat": int(time.time()),
        "nats": {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, **_limits(rights)},
    }
    return claims | ({"exp": math.ceil(token.expires)} if token.expires is not None else {})


def _limits(rights: Rights) -> dict[str, Any]:
    publish: dict[str, Any] = {"allow": list(rights.publish)}
    if rights.publish_denied:
        publish["deny"] = list(rights.publish_denied)
    limits: dict[str, Any] = {"pub": publish, "sub": {"allow": list(rights.subscribe)}}
    if rights.responds:
        limits["resp"] = {"max": 1, "ttl": RESPOND_WITHIN}
    return limits
