"""GPUs that are there: CUDA inside of containers, and their memory after a kernel was cancelled."""

import ctypes
import importlib.util
import shutil
from typing import Any

import pytest
from worker_stage import WORKSPACE, Stage

from tidemill._wire import coding, subjects
from tidemill._wire.messages import Status
from tidemill._wire.scheduling import Cancelled
from tidemill._wire.specs import Pool, Resources
from tidemill_worker import nvml


def why_not() -> str:
    """Return why there is nothing to test here, or nothing."""
    try:
        ctypes.CDLL(nvml.LIBRARY)
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"there is no GPU here: {error}"
    return ""


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not())]
RUNTIMES = [
    "process",
    pytest.param(
        "bubblewrap",
        marks=pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    ),
]

CODE = '''
import ctypes, os

SPIN = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry spin() {
    .reg .u64 %t;
    .reg .pred %p;
AGAIN:
    mov.u64 %t, %globaltimer;
    setp.ne.u64 %p, %t, 0;
    @%p bra AGAIN;
    ret;
}
"""

def ask(name, *arguments):
    status = getattr(cuda, name)(*arguments)
    if status:
        raise OSError(f"{name} returned {status}")

def begin():
    """Take the first GPU and 1 GiB of its memory."""
    global cuda
    cuda, context, memory = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_uint64()
    ask("cuInit", 0)
    ask("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    ask("cuCtxSetCurrent", context)
    ask("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(1 << 30))

def look():
    count = ctypes.c_int()
    begin()
    ask("cuDeviceGetCount", ctypes.byref(count))
    return count.value, os.environ["NVIDIA_VISIBLE_DEVICES"].split(",")

def spin():
    begin()
    module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
    ask("cuModuleLoadData", ctypes.byref(module), SPIN)
    ask("cuModuleGetFunction", ctypes.byref(kernel), module, b"spin")
    ask("cuLaunchKernel", kernel, 1, 1, 1, 1, 1, 1, 0, None, None, None)
    print("it runs", flush=True)
    ask("cuCtxSynchronize")

def torch_sum():
    import torch
    return torch.cuda.device_count(), torch.ones(1000, device="cuda").sum().item()
'''


@pytest.fixture(params=RUNTIMES)
async def with_gpus(request: Any, alone: Stage, launch_worker: Any) -> Stage:
    """A stage with a worker that has the GPUs of this machine."""
    await launch_worker(TIDEMILL_RUNTIME=request.param, TIDEMILL_WORKER_MEMORY="16384").serving()
    await alone.until(lambda: alone.states)
    return alone


async def pool_of(stage: Stage, function: str) -> Pool:
    return await stage.pool(CODE, function, resources=Resources(memory=4096, gpus=(("any", 1),)))


async def test_a_container_computes_on_its_gpu_and_sees_no_other(with_gpus: Stage) -> None:
    state = with_gpus.states[with_gpus.worker]
    assert state.driver
    assert all(gpu.name and gpu.uuid and gpu.memory for gpu in state.gpus)
    pool = await pool_of(with_gpus, "look")
    (container,) = await with_gpus.place(pool)
    count, (uuid,) = (await with_gpus.result(await with_gpus.call(pool, ()))).value
    assert count == 1
    assert uuid in {gpu.uuid for gpu in state.gpus}
    await with_gpus.stop(container)
    await with_gpus.until(
        lambda: all(gpu.state != "taken" for gpu in with_gpus.states[with_gpus.worker].gpus)
    )
    await with_gpus.until(lambda: with_gpus.states[with_gpus.worker].free.gpus == state.free.gpus)


async def test_cancelling_a_kernel_that_runs_for_ever_frees_its_gpu(with_gpus: Stage) -> None:
    before = with_gpus.states[with_gpus.worker].free.gpus
    pool = await pool_of(with_gpus, "spin")
    await with_gpus.place(pool)
    call = await with_gpus.call(pool, ())
    await with_gpus.until(lambda: "it runs" in with_gpus.text() or with_gpus.terminal(call))
    with_gpus.bus.publish(subjects.cancel(WORKSPACE, call), coding.encode(Cancelled(WORKSPACE, call)))
    assert (await with_gpus.result(call)).output.status == Status.CANCELLED
    await with_gpus.until(lambda: with_gpus.states[with_gpus.worker].free.gpus == before)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
async def test_pytorch_finds_the_gpu(with_gpus: Stage) -> None:
    pool = await pool_of(with_gpus, "torch_sum")
    await with_gpus.place(pool)
    assert (await with_gpus.result(await with_gpus.call(pool, ()))).value == (1, 1000.0)
