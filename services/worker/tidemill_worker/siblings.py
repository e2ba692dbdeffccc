"""The functions of an app as its containers call them: read when a container starts, once per version."""

import asyncio
from collections.abc import Mapping

import msgspec

from tidemill._wire.control import FunctionHandle
from tidemill._wire.specs import Pool
from tidemill_common import streams
from tidemill_worker.node import Node

KEPT = 256  # versions that are remembered
PAUSES = (0.1, 0.4, 1.5)  # seconds between tries: NATS may be having them put back

Handles = Mapping[str, FunctionHandle]

_decoder = msgspec.msgpack.Decoder(dict[str, FunctionHandle])


class Siblings:
    """The handles of the versions that run here. A version's never change."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[str, Handles] = {}

    async def of(self, pool: Pool) -> Handles:
        """Return the handles that a pool's containers call their app's functions through."""
        if not pool.handles_version:
            return pool.handles
        key = streams.handles_key(pool.app_id, pool.handles_version)
        handles = self._known.get(key)
        if handles is None:
            handles = await self._read(key)
            if handles is None:
                self._node.log.warning("a container does not know its app's functions", pool=pool.id, key=key)
                return pool.handles
            while len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[key] = handles
        return handles

    async def _read(self, key: str) -> Handles | None:
        for pause in (*PAUSES, None):
            body = await self._node.bus.bucket(streams.HANDLES).get(key)
            if body is not None:
                return _decoder.decode(body)
            if pause is not None:
                await asyncio.sleep(pause)
        return None
