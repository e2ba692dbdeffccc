"""Whose token it is: asked of the registry, remembered for some seconds."""

import asyncio
import hashlib
import time
from collections import OrderedDict

from tidemill import exception
from tidemill._wire import subjects
from tidemill._wire.tokens import MEMBER, TokenInfo, VerifyToken
from tidemill_common.bus.protocol import ServiceBus
from tidemill_gateway.sessions import ask

REMEMBERED = 5.0  # seconds: for so long a token that was revoked may still be taken
MAX_REMEMBERED = 10_000  # tokens
AT_ONCE = 64  # questions to the registry
WRONG = "the token is missing, wrong, expired or revoked"
HINT = "send `Authorization: Bearer <token id>:<token secret>`"


class Tokens:
    """Turns tokens into the workspaces that they are for."""

    def __init__(self, bus: ServiceBus) -> None:
        self._bus = bus
        self._known: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def workspace(self, token: tuple[str, str] | None) -> str:
        """Return the workspace of a token (id, secret). Raises `AuthError`, or `ServiceError`."""
        if token is None:
            raise exception.AuthError(WRONG, hint=HINT)
        key = hashlib.sha256("\0".join(token).encode()).digest()
        known = self._known.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        async with self._turn:
            workspace, until = await self._verified(*token)
        self._known[key] = (until, workspace)
        self._known.move_to_end(key)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return workspace

    async def _verified(self, token_id: str, secret: str) -> tuple[str, float]:
        """Return a token's workspace, and until when (monotonic) that may be remembered."""
        subject = subjects.internal("registry", "verify_token")
        try:
            info = await ask(self._bus, subject, VerifyToken(token_id, secret), TokenInfo)
        except exception.AuthError as error:
            raise exception.AuthError(WRONG, hint=HINT) from error
        if info.kind != MEMBER:
            raise exception.PermissionDeniedError("this token is for workers")
        left = REMEMBERED if info.expires is None else min(REMEMBERED, info.expires - time.time())
        return info.workspace, time.monotonic() + left
