"""GPUs that a worker finds by its driver: told, given to containers, and offered again when they are free."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pretended_gpus import LOST, Pretended, PretendedGpus, compiled, needs_compiler
from worker_stage import WORKSPACE, Stage, eventually

from tidemill._wire import coding, subjects
from tidemill._wire.messages import Status
from tidemill._wire.scheduling import Cancelled
from tidemill._wire.specs import Pool, Resources

pytestmark = needs_compiler

CODE = """
import ctypes, os, pathlib

def look(gpus=""):
    told = {name: os.environ.get(name) for name in
            ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}
    if gpus:  # what the driver is told by whoever computes on a GPU
        for uuid in told["NVIDIA_VISIBLE_DEVICES"].split(","):
            pathlib.Path(gpus, "use", f"{uuid}.{os.getpid()}").write_text("20000")
    cuda = ctypes.c_int()
    ctypes.CDLL("libnvidia-ml.so.1").nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(cuda))
    told["cuda"] = cuda.value
    told["nodes"] = sorted(name for name in os.listdir("/dev") if "nvidia" in name)
    return told

def kernel(gpus):
    import time
    while True:  # it does not hear that it is to stop, from before anybody can see it compute
        try:
            look(gpus)
            time.sleep(60)
        except BaseException:
            pass
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("nvml"))


# Workers of one machine claim GPUs by their names: those of tests that run beside these have others.
L4, OTHER_L4, A100 = (f"GPU-{os.getpid()}-{number}" for number in range(3))


@pytest.fixture
def gpus(tmp_path: Path, library: Path) -> PretendedGpus:
    """Two GPUs of one type and one of another."""
    found = PretendedGpus(tmp_path / "nvml", library)
    found.put(
        Pretended(L4, minor=4),
        Pretended(OTHER_L4, minor=5),
        Pretended(A100, "NVIDIA A100-SXM4-80GB", 81_920, 6),
    )
    return found


async def start(alone: Stage, launch_worker: Any, gpus: PretendedGpus, **settings: str) -> Any:
    worker = launch_worker(**gpus.environment | settings)
    await worker.serving()
    await alone.until(lambda: alone.states)
    return worker


async def pool_of(alone: Stage, function: str = "look", **resources: Any) -> Pool:
    return await alone.pool(CODE, function, resources=Resources(**resources))


def standings(alone: Stage) -> dict[str, str]:
    return {gpu.uuid: gpu.state for gpu in alone.states[alone.worker].gpus}


async def test_a_worker_tells_the_gpus_that_its_driver_knows(
    alone: Stage, launch_worker: Any, gpus: PretendedGpus
) -> None:
    gpus.use(OTHER_L4, os.getpid(), 700)  # somebody else's
    await start(alone, launch_worker, gpus)
    state = alone.states[alone.worker]
    assert state.driver == "550.54.15, CUDA 12.4"
    assert state.capabilities == ("cpu", "gpu-L4", "gpu-A100-80GB")
    assert (state.total.gpus, state.free.gpus) == ({"L4": 2, "A100-80GB": 1}, {"L4": 1, "A100-80GB": 1})
    assert [(gpu.name, gpu.memory, gpu.state) for gpu in state.gpus] == [
        ("NVIDIA L4", 23_034, "free"),
        ("NVIDIA L4", 23_034, "in use elsewhere"),
        ("NVIDIA A100-SXM4-80GB", 81_920, "free"),
    ]
    (gpus.folder / "use" / f"{OTHER_L4}.{os.getpid()}").unlink()
    await alone.until(lambda: alone.states[alone.worker].free.gpus["L4"] == 2)


async def test_a_gpu_is_offered_again_when_the_memory_of_the_last_container_is_back(
    alone: Stage, launch_worker: Any, gpus: PretendedGpus
) -> None:
    await start(alone, launch_worker, gpus)
    pool = await pool_of(alone, gpus=(("L4", 2),))
    (container,) = await alone.place(pool)
    look = (await alone.result(await alone.call(pool, (str(gpus.folder),)))).value
    assert look | {"nodes": []} == {
        "CUDA_VISIBLE_DEVICES": "0,1", "NVIDIA_VISIBLE_DEVICES": f"{L4},{OTHER_L4}",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "cuda": 12_040, "nodes": [],
    }  # fmt: skip
    await alone.until(lambda: [one.gpus for one in alone.containers] == [{"L4": 2}])
    assert standings(alone) == {L4: "taken", OTHER_L4: "taken", A100: "free"}
    gpus.put(Pretended(L4, used=9_000), Pretended(OTHER_L4), Pretended(A100))
    await alone.stop(container, graceful=False)
    await alone.event(container, "stopped")
    await alone.until(lambda: standings(alone)[OTHER_L4] == "free")
    assert standings(alone)[L4] == "clearing"
    refused = await alone.ask_to_place(pool)
    assert (refused.accepted, refused.reason) == (False, "no 2 x L4 is free")
    gpus.put(Pretended(L4), Pretended(OTHER_L4), Pretended(A100))
    await alone.until(lambda: standings(alone)[L4] == "free")
    await alone.place(pool)


async def test_cancelling_what_computes_without_hearing_it_frees_the_gpu(
    alone: Stage, launch_worker: Any, gpus: PretendedGpus
) -> None:
    await start(alone, launch_worker, gpus)
    pool = await pool_of(alone, "kernel", gpus=(("A100", 1),))
    (container,) = await alone.place(pool)
    call = await alone.call(pool, (str(gpus.folder),))
    await eventually(lambda: exists(gpus, A100))
    alone.bus.publish(subjects.cancel(WORKSPACE, call), coding.encode(Cancelled(WORKSPACE, call)))
    assert (await alone.result(call)).output.status == Status.CANCELLED
    await alone.event(container, "stopped")
    await alone.until(lambda: standings(alone)[A100] == "free")


async def exists(gpus: PretendedGpus, uuid: str) -> bool:
    return any((gpus.folder / "use").glob(f"{uuid}.*"))


async def test_a_gpu_that_is_lost_is_set_aside_and_told(
    alone: Stage, launch_worker: Any, gpus: PretendedGpus
) -> None:
    worker = await start(alone, launch_worker, gpus)
    pool = await pool_of(alone, gpus=(("A100", 1),))
    (container,) = await alone.place(pool)
    gpus.put(Pretended(L4), Pretended(OTHER_L4), Pretended(A100, status=LOST))
    await alone.stop(container, graceful=False)
    event = await alone.event(container, "kept_gpu")
    assert event.reason == f"its GPU {A100} is set aside: the driver cannot reach it: GPU is lost"
    await alone.until(lambda: standings(alone)[A100] == "set aside")
    assert alone.states[alone.worker].total.gpus == {"L4": 2, "A100-80GB": 0}
    assert "tidemill_worker_gpus_set_aside_total 1.0" in (await worker.get("/metrics"))[1]


async def test_a_killed_worker_leaves_its_gpus_to_the_next_one(
    alone: Stage, launch_worker: Any, gpus: PretendedGpus
) -> None:
    first = await start(alone, launch_worker, gpus)
    pool = await pool_of(alone, gpus=(("L4", 2),))
    await alone.place(pool)
    await alone.result(await alone.call(pool, (str(gpus.folder),)))
    alone.states.clear()
    second = launch_worker(**gpus.environment)
    await second.serving()
    await alone.until(lambda: len(alone.states) == 2)
    theirs = max(alone.states)
    # Both look whether anybody has the A100, and may see each other do so for a moment.
    await alone.until(lambda: alone.states[theirs].free.gpus == {"L4": 0, "A100-80GB": 1})
    await first.kill()
    await alone.until(lambda: alone.states[theirs].free.gpus == {"L4": 2, "A100-80GB": 1})


def test_a_driver_that_does_not_work_is_told_from_one_that_is_not_there(gpus: PretendedGpus) -> None:
    code = "from tidemill_worker.nvml import Nvml; Nvml.open()"
    command, broken = [sys.executable, "-c", code], gpus.environment | {"NVML_GPUS": ""}
    done = subprocess.run(command, env={**os.environ, **broken}, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "tidemill_worker.nvml.DriverError: Driver Not Loaded"


@pytest.mark.skipif(
    "CI" not in os.environ and (os.getuid() != 0 or shutil.which("bwrap") is None),
    reason="sandboxes are tried by root, with bubblewrap",
)
async def test_a_sandbox_has_the_nodes_of_its_own_gpus_and_the_driver(
    alone: Stage, launch_worker: Any, gpus: PretendedGpus, device_nodes: None
) -> None:
    await start(alone, launch_worker, gpus, TIDEMILL_RUNTIME="bubblewrap")
    pool = await pool_of(alone, gpus=(("L4", 1),))
    await alone.place(pool)
    look = (await alone.result(await alone.call(pool, ()))).value
    assert look["CUDA_VISIBLE_DEVICES"] == "0"
    assert look["NVIDIA_VISIBLE_DEVICES"] == L4
    assert look["cuda"] == 12_040
    assert look["nodes"] == ["nvidia4", "nvidiactl"]


@pytest.fixture
def device_nodes() -> Any:
    """Nodes of this machine's that are called as NVIDIA's are: anybody may open them, to read zeros."""
    made = [Path("/dev") / name for name in ("nvidia4", "nvidia5", "nvidiactl")]
    made = [path for path in made if not path.exists()]
    try:
        for path in made:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            path.chmod(0o666)
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    yield
    for path in made:
        path.unlink(missing_ok=True)
