"""The GPUs of this machine as NVIDIA's driver (510 or newer) tells of them, through its library NVML."""

import asyncio
import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tidemill_worker.devices import Device, type_of

LIBRARY = "libnvidia-ml.so.1"
_MIB = 1 << 20

P = ParamSpec("P")
R = TypeVar("R")


class DriverError(Exception):
    """The driver cannot say, or the GPU does not answer it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a GPU is used for now: MiB of its memory, and by how many processes that compute on it.

    What the driver keeps of the memory for itself does not count.
    """

    used: int
    processes: int


class Nvml:
    """A connection to the driver. Its calls take milliseconds, and seconds while the driver is busy."""

    def __init__(self, binding: Any) -> None:
        self._nvml = binding
        self.driver: str = binding.nvmlSystemGetDriverVersion()
        cuda: int = binding.nvmlSystemGetCudaDriverVersion_v2()
        self.cuda = f"{cuda // 1000}.{cuda % 1000 // 10}"
        self._handles: dict[str, Any] = {}

    @classmethod
    def open(cls) -> "Nvml | None":
        """Return a connection, or None where there is no driver.

        Raises:
            DriverError: there is one, and it does not work.
        """
        try:
            ctypes.CDLL(LIBRARY)
        except OSError:
            return None
        import pynvml

        try:
            pynvml.nvmlInit()
            return cls(pynvml)
        except pynvml.NVMLError as error:
            raise DriverError(str(error)) from error

    def devices(self) -> tuple[Device, ...]:
        """Return the GPUs that can be given to containers: one that is cut into parts (MIG) cannot.

        Raises:
            DriverError: the driver cannot say.
        """
        try:
            found = (self._device(number) for number in range(self._nvml.nvmlDeviceGetCount()))
            return tuple(device for device in found if device is not None)
        except self._nvml.NVMLError as error:
            raise DriverError(str(error)) from error

    def _device(self, number: int) -> Device | None:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        with suppress(nvml.NVMLError):  # most kinds cannot be cut
            if nvml.nvmlDeviceGetMigMode(handle)[0]:
                return None
        uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle).total // _MIB
        self._handles[uuid] = handle
        minor = nvml.nvmlDeviceGetMinorNumber(handle)
        return Device(number, type_of(name, memory), uuid, name, memory, minor)

    def reading(self, device: Device) -> Reading:
        """Return what a GPU is used for now.

        Raises:
            DriverError: it does not answer.
        """
        nvml, handle = self._nvml, self._handles[device.uuid]
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            return Reading(memory.used // _MIB, len(processes))
        except nvml.NVMLError as error:
            raise DriverError(str(error)) from error

    def close(self) -> None:
        """Let go of the driver."""
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()


def asked(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[R]":
    """Return what a call to the driver will give, made in a thread of its own.

    The thread ends with the process: a call that hangs in the driver must not hold the worker's exit, as
    it would in an executor.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[R] = loop.create_future()

    def settle(take: Callable[[], None]) -> None:
        if not answer.done():
            take()

    def run() -> None:
        try:
            result = call(*args, **kwargs)
        except BaseException as error:
            take = partial(answer.set_exception, error)
        else:
            take = partial(answer.set_result, result)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, take)

    threading.Thread(target=run, name="nvml", daemon=True).start()
    return answer


def folder() -> Path | None:
    """Return the folder of the library that is loaded, where the driver's others lie too."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = (Path(line.split(maxsplit=5)[5]) for line in lines if "libnvidia-ml" in line)
    return next((path.parent for path in paths), None)
