"""The GPUs that this worker gives away: how they are found, and what looks after them."""

import asyncio
import time
from collections.abc import Callable

from tidemill._wire import tokens
from tidemill_common.logging import Logger
from tidemill_worker import devices, nvml
from tidemill_worker.devices import Device
from tidemill_worker.driver import Driver
from tidemill_worker.gpu_watch import GpuWatch, Tell
from tidemill_worker.gpus import Gpus
from tidemill_worker.metrics import Metrics
from tidemill_worker.nvml import DriverError, Nvml
from tidemill_worker.settings import Settings

PATIENCE = 30.0  # seconds for the driver to wake its GPUs


class Hardware:
    """GPUs, declared or discovered."""

    def __init__(self, found: tuple[Device, ...], driver: Nvml | None, log: Logger, metrics: Metrics) -> None:
        self.gpus = Gpus(found, time.monotonic)
        self.driver = Driver(nvml.folder() if driver else None)
        self.version = f"{driver.driver}, CUDA {driver.cuda}" if driver else ""
        self._nvml = driver
        self._watch = GpuWatch(self.gpus, driver, log, metrics) if driver else None

    @classmethod
    async def find(cls, settings: Settings, log: Logger, metrics: Metrics) -> "Hardware":
        """Return the GPUs that the settings ask for, each of them looked at once."""
        driver, found = await _find(settings, log)
        hardware = cls(found, driver, log, metrics)
        if hardware._watch is not None:
            await asyncio.to_thread(hardware.driver.prepare)
            await hardware._watch.look()
        return hardware

    def start(self, tasks: asyncio.TaskGroup, changed: Callable[[], None], tell: Tell) -> None:
        """Look after them from now on."""
        if self._watch is not None:
            tasks.create_task(self._watch.run(changed, tell), name="watch GPUs")

    def close(self) -> None:
        """Let others have them."""
        self.gpus.close()
        if self._nvml is not None and self._watch is not None and not self._watch.hangs:
            self._nvml.close()


async def _find(settings: Settings, log: Logger) -> tuple[Nvml | None, tuple[Device, ...]]:
    wanted = settings.worker_gpus
    if tokens.kind_of_worker(settings.nats_user) == tokens.WORKER:
        if wanted and wanted != "auto":
            log.warning(
                "GPUs are not offered: this worker's token is not of the kind gpu-worker", gpus=wanted
            )
        return None, ()
    if wanted != "auto":
        return None, devices.declared(wanted)
    try:
        async with asyncio.timeout(PATIENCE):
            driver = await nvml.asked(Nvml.open)
            found = await nvml.asked(driver.devices) if driver else ()
    except (DriverError, TimeoutError) as error:
        why = str(error) or f"it does not answer within {PATIENCE:g} s"
        log.warning("GPUs cannot be used: their driver does not work", why=why)
        return None, ()
    if driver and found:
        log.info("GPUs found", driver=driver.driver, cuda=driver.cuda, names=[one.name for one in found])
    return (driver if found else None), found
