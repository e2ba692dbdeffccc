"""Ending the connections of revoked tokens.

A connection is asked about once, when it is made. So whoever revokes a token also has the servers end what
is connected with it: the system account lists connections by user and kicks them out. Every replica looks
every few seconds for tokens that were revoked lately, by a request or on the command line, and for some time
again: a connection may have been made in the moment of the revocation, or a server may have been away.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from tidemill._bus.protocol import BusError, Message
from tidemill.exception import Error
from tidemill_common.bus.nats import NatsServiceBus, connect
from tidemill_common.logging import Logger
from tidemill_registry.database import UNREACHABLE
from tidemill_registry.tokens import Tokens

EVERY = 2.0  # seconds
LATELY = timedelta(seconds=60)
ANSWERS = 0.5  # seconds in which servers tell their connections
PAGE = 1_024
AT_ONCE = 100  # tokens whose connections are looked for


class Revocations:
    """Ends connections. Connects to the system account when there is something to end."""

    def __init__(self, tokens: Tokens, url: str, user: str, password: str, log: Logger) -> None:
        self._tokens = tokens
        self._url, self._user, self._password = url, user, password
        self._log = log
        self._bell = asyncio.Event()

    def soon(self) -> None:
        """Look now: something was revoked."""
        self._bell.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self._bell.clear()
            try:
                if ended := await self._tokens.lately_ended(LATELY):
                    await self._end(ended)
            except (BusError, Error, *UNREACHABLE) as error:
                self._log.warning("connections of revoked tokens cannot be ended now", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._bell.wait()

    async def _end(self, token_ids: list[str]) -> None:
        bus = await connect(self._url, self._user, self._password, name="tidemill registry (system)")
        try:
            turn = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._end_one(bus, token_id, turn) for token_id in token_ids))
        finally:
            await bus.close()

    async def _end_one(self, bus: NatsServiceBus, token_id: str, turn: asyncio.Semaphore) -> None:
        async with turn:
            async for server, connection in self._connections(bus, token_id):
                request = json.dumps({"cid": connection}).encode()
                await bus.request(f"$SYS.REQ.SERVER.{server}.KICK", request)
                self._log.info("ended a connection of a revoked token", token=token_id)

    async def _connections(self, bus: NatsServiceBus, user: str) -> AsyncIterator[tuple[str, int]]:
        """Yield server and number of every connection that a user has."""
        answers: list[dict[str, Any]] = []
        inbox = bus.new_inbox()

        def take(message: Message) -> None:
            answers.append(json.loads(message.data))

        subscription = await bus.subscribe(inbox, take)
        try:
            request = json.dumps({"auth": True, "user": user, "limit": PAGE}).encode()
            bus.publish("$SYS.REQ.SERVER.PING.CONNZ", request, reply=inbox)
            await asyncio.sleep(ANSWERS)  # how many servers there are, nobody says
        finally:
            await subscription.close()
        for answer in answers:
            for connection in answer.get("data", {}).get("connections") or ():
                yield answer["server"]["id"], connection["cid"]
