"""Looks after the GPUs that no container has: whether their memory is free, and whether they answer."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from tidemill_common.logging import Logger
from tidemill_worker.gpus import Gpu, Gpus, Holder, Standing
from tidemill_worker.metrics import Metrics
from tidemill_worker.nvml import DriverError, Nvml, Reading, asked

SOON, EVERY = 0.05, 1.0  # seconds between two looks: while a GPU is given back, and otherwise
ANSWER = 10.0  # seconds for the driver to answer

Tell = Callable[[Holder, str], None]  # whose end left a GPU in use, and how


class GpuWatch:
    """Asks the driver, and acts on what it says."""

    def __init__(self, gpus: Gpus, nvml: Nvml, log: Logger, metrics: Metrics) -> None:
        self._gpus = gpus
        self._nvml = nvml
        self._log = log
        self._metrics = metrics
        self._back = asyncio.Event()
        self._asked: asyncio.Future[Reading] | None = None
        gpus.on_back = self._back.set

    async def run(self, changed: Callable[[], None], tell: Tell) -> None:
        """Look for ever. `changed` is called when a GPU can be offered, or cannot any more."""
        while True:
            self._back.clear()
            if await self.look(tell):
                changed()
            if any(gpu.standing is Standing.CLEARING for gpu in self._gpus.open()):
                await asyncio.sleep(SOON)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._back.wait()

    async def look(self, tell: Tell = lambda _holder, _how: None) -> bool:
        """Look at every GPU that no container has; return whether anything changed."""
        changed = [await self._look_at(gpu, tell) for gpu in self._gpus.open()]
        for standing in Standing:
            count = sum(state.state == standing.value for state in self._gpus.states())
            self._metrics.gpus.labels(standing.value).set(count)
        return any(changed)

    async def _look_at(self, gpu: Gpu, tell: Tell) -> bool:
        holder = gpu.holder
        try:
            changed = self._gpus.take_in(gpu, await self._ask(gpu))
        except DriverError as error:
            changed = self._gpus.fail(gpu, str(error))
        if changed and gpu.standing is Standing.ASIDE:
            self._metrics.gpus_set_aside.inc()
            self._log.error("a GPU is set aside", gpu=gpu.device.uuid, why=gpu.note)
            if holder:
                tell(holder, f"its GPU {gpu.device.uuid} is set aside: {gpu.note}")
        return changed

    @property
    def hangs(self) -> bool:
        """Whether the driver has not answered what it was asked last."""
        return self._asked is not None and not self._asked.done()

    async def _ask(self, gpu: Gpu) -> Reading:
        """Return what a GPU is used for. A driver that hangs costs one thread, and not the worker."""
        if self.hangs:
            raise DriverError("it still does not answer")
        self._asked = asked(self._nvml.reading, gpu.device)
        await asyncio.wait({self._asked}, timeout=ANSWER)
        if not self._asked.done():
            raise DriverError(f"it does not answer within {ANSWER:g} s")
        return self._asked.result()
