"""Every test here runs on a real NATS server and on the verified in-memory bus."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scheduler_stage import Parts

from tidemill_common import streams
from tidemill_common.bus import memory, nats
from tidemill_common.bus.protocol import ServiceBus
from tidemill_local.broker import Broker, BrokerSettings


@pytest.fixture(params=["nats", "memory"])
async def parts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Parts]:
    """A bus with its streams, and whatever the test puts on it."""
    if request.param == "memory":
        broker = memory.MemoryServer()

        async def connect_memory() -> ServiceBus:
            return broker.connect()

        parts = Parts(await connect_memory(), connect_memory, None)
        await streams.apply(parts.bus, "main")
        yield parts
        await parts.close()
        return
    server = Broker(BrokerSettings(tmp_path / "nats"))
    await server.start()

    async def connect() -> ServiceBus:
        return await nats.connect(server.url, "service", server.settings.passwords["service"])

    async def restart(down: float) -> float:
        server.kill()
        await asyncio.sleep(down)  # the outage itself
        begun = time.time()
        await server.start()
        return begun

    try:
        parts = Parts(await connect(), connect, restart)
        await streams.apply(parts.bus, "main")
        yield parts
        await parts.close()
    finally:
        await server.stop()
