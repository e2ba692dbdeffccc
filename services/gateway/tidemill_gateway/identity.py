"""Whose token it is: asked of the registry, remembered for some seconds."""

import asyncio
import hashlib
import time
from collections import OrderedDict

from tidemill import exception
from tidemill._bus import nats
from tidemill._bus.protocol import Disconnected
from tidemill._wire import ids

REMEMBERED = 5.0  # seconds: for so long a token that was revoked may still be taken
MAX_REMEMBERED = 10_000  # tokens
AT_ONCE = 64  # questions to the registry
WRONG = "the token is missing, wrong, expired or revoked"
HINT = "send `Authorization: Bearer <token id>:<token secret>`"


class Tokens:
    """Turns tokens into the workspaces that they are for."""

    def __init__(self, nats_url: str) -> None:
        self._nats_url = nats_url
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
            workspace = await self._verified(*token)
        self._known[key] = (time.monotonic() + REMEMBERED, workspace)
        self._known.move_to_end(key)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return workspace

    async def _verified(self, token_id: str, secret: str) -> str:
        try:
            workspace = ids.workspace_of_token(token_id)
        except ValueError as error:
            raise exception.AuthError(WRONG, hint=HINT) from error
        try:
            bus = await nats.connect(self._nats_url, token_id, secret, name="tidemill token")
        except Disconnected as error:
            if "authorization" in str(error).lower():
                raise exception.AuthError(WRONG, hint=HINT) from error
            raise exception.ConnectionError(str(error)) from error
        await bus.close()
        return workspace
