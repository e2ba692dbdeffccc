"""A small service, run as a process by the tests: what it does is said on the command line."""

import asyncio
import sys

from tidemill._bus.protocol import Message
from tidemill_common.service import Context, run
from tidemill_common.settings import ServiceSettings


class Probe:
    """Serves `tm.probe.ask`, and misbehaves on demand."""

    name = "probe"
    settings = ServiceSettings()

    async def start(self, context: Context) -> None:
        self.context = context
        self.asked = asyncio.Event()
        self.end = await context.bus.serve("probe", "1.0.0", {"tm.probe.ask": self.ask})
        context.tasks.create_task(self.loop())
        if "start-hangs" in sys.argv:
            await asyncio.Event().wait()

    async def loop(self) -> None:
        await self.asked.wait()
        if "crash" in sys.argv:
            raise RuntimeError("the loop is broken")
        try:
            await asyncio.Event().wait()
        finally:
            self.context.log.info("loop ended")

    async def ask(self, request: Message) -> bytes:
        self.asked.set()
        if request.data == b"slow":
            await self.context.stopping.wait()
        return request.data

    async def ready(self) -> str | None:
        return None if self.asked.is_set() else "nobody has asked yet"

    async def drain(self) -> None:
        await self.end()
        if "drain-hangs" in sys.argv:
            await asyncio.Event().wait()
        if "drain-fails" in sys.argv:
            raise RuntimeError("cannot drain")
        self.context.log.info("drained")


if __name__ == "__main__":
    run(Probe())
