"""The bus on NATS: the connection that the SDK and, with more on top, every service has."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tidemill._bus import jetstream
from tidemill._bus.batches import Batch
from tidemill._bus.core import CoreBus
from tidemill._bus.framing import checked, header_block
from tidemill._bus.protocol import BusError, PubAck, Refused, RequestTimeout, Stored

STORE_TIMEOUT = 30.0  # seconds without any word until a store fails
STORE_PATIENCE = 8.0  # seconds without any word until a store with an id is sent again
API_TIMEOUT, API_TRIES, API_PAUSE = 3.0, 5, 0.2  # seconds; of one question to JetStream
READ_TRIES = 3  # how often a batch that stops coming is asked for again


async def connect(
    url: str, user: str = "", password: str = "", *, name: str = "tidemill", timeout: float = 10.0
) -> "NatsBus":
    """Connect to NATS; `Disconnected` if it cannot be done within `timeout` seconds."""
    bus = NatsBus(user)
    await bus.open(url, user, password, name=name, timeout=timeout)
    return bus


class NatsBus(CoreBus):
    """A connection to NATS with its streams. Made by `connect`."""

    def store(
        self, subject: str, data: bytes, *, msg_id: str = "", headers: Mapping[str, str] | None = None
    ) -> "asyncio.Future[PubAck]":
        """See `Bus.store`."""
        if headers:
            block = header_block({"Nats-Msg-Id": msg_id, **headers} if msg_id else headers)
        else:
            block = f"NATS/1.0\r\nNats-Msg-Id: {checked(msg_id)}\r\n\r\n" if msg_id else ""
        patience = STORE_PATIENCE if msg_id else 0.0
        return self._tell(checked(subject), data, block, jetstream.stored, STORE_TIMEOUT, patience)

    async def api(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream's API (`STREAM.INFO.X`); raises `Refused` and its relatives.

        Everything asked this way may be asked twice, and is when no answer comes: among several servers a
        stream whose leader died has no other for up to ten seconds.
        """
        request = json.dumps(body).encode() if body else b""
        tries = API_TRIES
        while True:
            try:
                answer = await self.request(f"{jetstream.API}.{verb}", request, timeout=API_TIMEOUT)
                return jetstream.parsed(answer)
            except (RequestTimeout, jetstream.Leaderless):
                tries -= 1
                if not tries:
                    raise
            await asyncio.sleep(API_PAUSE)

    # --- reading streams

    async def last(self, stream: str, subject: str) -> Stored | None:
        """See `Bus.last`."""
        try:
            return jetstream.message(
                await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": checked(subject)})
            )
        except Refused as error:
            if error.code == jetstream.NO_MESSAGE:
                return None
            raise

    async def read(
        self, stream: str, subject: str, *, since: float | None = None, sequence: int = 1
    ) -> AsyncIterator[Stored]:
        """See `Bus.read`. `RequestTimeout` when a batch stops coming three times in a row."""
        tries, more = READ_TRIES, True
        while more:
            batch = self._batch(stream, checked(subject), since, sequence)
            try:
                while pieces := await batch.next():
                    for stored in pieces:
                        tries, since, sequence = READ_TRIES, None, stored.sequence + 1
                        yield stored
                more = batch.more
            except RequestTimeout:
                tries -= 1
                if not tries:
                    raise
            finally:
                batch.close()

    def _batch(self, stream: str, subject: str, since: float | None, sequence: int) -> Batch:
        """Ask for the next messages of a stream."""
        inbox = f"{self._inbox}.b.{next(self._tokens)}"
        batch = Batch(self._loop)
        sid = self._connection.listen(inbox, "", batch.take)
        self._others.add(batch.ended)

        def close() -> None:
            self._connection.unlisten(sid)
            self._others.discard(batch.ended)

        batch.on_close = close
        request = jetstream.batch_request(subject, since=since, sequence=sequence)
        try:
            self.publish(f"{jetstream.API}.DIRECT.GET.{stream}", request, reply=inbox)
        except BusError:
            close()
            raise
        return batch

    async def purge(self, stream: str, subject: str, *, below: int = 0) -> int:
        """See `Bus.purge`."""
        request: dict[str, Any] = {"filter": checked(subject)} | ({"seq": below} if below else {})
        answer = await self.api(f"STREAM.PURGE.{stream}", request)
        return int(answer.get("purged", 0))
