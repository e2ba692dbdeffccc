"""GPUs of a worker: which they are, who has them, and when they are offered again."""

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import structlog

from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import FunctionSpec, Pool, Resources, Source
from tidemill_common.metrics import new_registry
from tidemill_worker import driver
from tidemill_worker.capacity import Room
from tidemill_worker.devices import Device, declared, type_of
from tidemill_worker.driver import Driver
from tidemill_worker.gpus import PATIENCE, Gpus, Holder, variables
from tidemill_worker.hardware import Hardware
from tidemill_worker.metrics import Metrics
from tidemill_worker.nvml import Reading
from tidemill_worker.settings import Settings

SPEC = FunctionSpec("f", Source(), resources=Resources(cpu=0.5, memory=100, gpus=(("L4", 1),)))
POOL = Pool("po-1", "ap-1", "app", "fu-1", "main", "main", "gpu-L4", 0, "INPUTS_gpu_0", "tm", SPEC)
IDLE = Reading(used=3, processes=0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def found(number: int = 0) -> Device:
    return Device(number, "L4", f"GPU-{uuid4()}", "NVIDIA L4", 23_034, number)


def look(gpus: Gpus, reading: Reading) -> list[str]:
    """Take a reading of every GPU in; return where they stand."""
    for gpu in gpus.open():
        gpus.take_in(gpu, reading)
    return [state.state for state in gpus.states()]


@pytest.mark.parametrize(
    ("name", "memory", "kind"),
    [
        ("Tesla T4", 15_360, "T4"),
        ("NVIDIA L4", 23_034, "L4"),
        ("NVIDIA L40S", 46_068, "L40S"),
        ("NVIDIA L40", 46_068, "L40"),
        ("NVIDIA A10", 23_028, "A10"),
        ("NVIDIA A10G", 23_028, "A10"),
        ("NVIDIA A100-SXM4-40GB", 40_960, "A100-40GB"),
        ("A100-PCIE-40GB", 40_960, "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", 81_920, "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", 81_559, "H100"),
        ("NVIDIA H100 NVL", 95_830, "H100"),
        ("NVIDIA H200", 143_771, "H200"),
        ("NVIDIA B200", 183_359, "B200"),
        ("NVIDIA B300 SXM6 AC", 275_040, "B300"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97_887, "RTX-PRO-6000"),
        ("NVIDIA GeForce RTX 4090", 24_564, "RTX-4090"),
        ("Tesla V100-SXM2-16GB", 16_384, "V100-SXM2-16GB"),
        ("Graphics Device", 16_384, "GPU"),
    ],
)
def test_a_gpu_is_of_the_type_that_requests_name(name: str, memory: int, kind: str) -> None:
    assert type_of(name, memory) == kind


def test_no_gpu_is_given_to_two_containers() -> None:
    gpus = Gpus(declared({"H100": 3, "L4": 1}), Clock())
    first, second = (gpus.take(Holder(name, POOL), "H100", 1) for name in ("co-1", "co-2"))
    assert first
    assert second
    assert first[0].number != second[0].number
    assert gpus.free() == {"H100": 1, "L4": 1}
    assert gpus.take(Holder("co-3", POOL), "H100", 2) is None
    gpus.give_back("co-1")
    gpus.give_back("co-1")
    assert gpus.free() == {"H100": 2, "L4": 1}
    assert gpus.total() == {"H100": 3, "L4": 1}


def test_a_gpu_is_offered_again_when_nothing_computes_on_it_and_its_memory_is_back() -> None:
    gpus = Gpus([found()], Clock())
    assert look(gpus, IDLE) == ["free"]
    gpus.take(Holder("co-1", POOL), "L4", 1)
    assert gpus.open() == ()
    gpus.give_back("co-1")
    for left in (Reading(20_000, 1), Reading(20_000, 0), Reading(3, 1)):
        assert look(gpus, left) == ["clearing"]
        assert gpus.free() == {"L4": 0}
    assert look(gpus, Reading(20, 0)) == ["free"]
    assert gpus.free() == {"L4": 1}


def test_a_gpu_whose_memory_does_not_come_back_is_set_aside_until_it_does() -> None:
    clock = Clock()
    gpus = Gpus([found()], clock)
    look(gpus, IDLE)
    gpus.take(Holder("co-1", POOL), "L4", 1)
    gpus.give_back("co-1")
    clock.now += PATIENCE + 1
    assert look(gpus, Reading(9_003, 0)) == ["set aside"]
    assert gpus.states()[0].note == "still in use by 9000 MiB of its memory 30 s after its container ended"
    assert gpus.total() == {"L4": 0}
    assert look(gpus, IDLE) == ["free"]
    assert gpus.total() == {"L4": 1}


def test_a_gpu_that_does_not_answer_is_set_aside_and_remembers_its_container() -> None:
    gpus = Gpus([found()], Clock())
    look(gpus, IDLE)
    gpus.take(Holder("co-1", POOL), "L4", 1)
    gpus.give_back("co-1")
    (gpu,) = gpus.open()
    assert gpus.fail(gpu, "GPU is lost")
    assert not gpus.fail(gpu, "GPU is lost")
    assert gpu.holder == Holder("co-1", POOL)
    assert gpus.states()[0].note == "the driver cannot reach it: GPU is lost"
    gpus.close()


def test_a_gpu_that_was_taken_while_the_driver_hung_stays_its_containers() -> None:
    gpus = Gpus([found()], Clock())
    (asked,) = gpus.open()
    gpus.take(Holder("co-1", POOL), "L4", 1)
    assert not gpus.fail(asked, "it does not answer within 10 s")
    assert look(gpus, IDLE) == ["taken"], "it is not offered to others"
    gpus.give_back("co-1")
    assert look(gpus, IDLE) == ["free"]


def test_a_gpu_that_others_use_is_not_offered_until_they_stop() -> None:
    gpus = Gpus([found()], Clock())
    assert look(gpus, Reading(700, 1)) == ["in use elsewhere"]
    assert gpus.states()[0].note == "in use by 1 processes"
    assert gpus.free() == {"L4": 0}
    assert look(gpus, Reading(700, 0)) == ["free"]  # a screen needs memory too


def test_workers_of_one_machine_do_not_give_the_same_gpu_away() -> None:
    devices = [found(0), found(1)]
    first, second = Gpus(devices, Clock()), Gpus(devices, Clock())
    for gpus in (first, second):
        look(gpus, IDLE)
    mine = first.take(Holder("co-1", POOL), "L4", 1)
    assert second.take(Holder("co-2", POOL), "L4", 2) is None
    assert second.free() == {"L4": 1}
    theirs = second.take(Holder("co-2", POOL), "L4", 1)
    assert mine
    assert theirs
    assert mine != theirs
    assert look(first, IDLE) == ["taken", "in use elsewhere"]
    second.close()
    assert look(first, IDLE) == ["taken", "free"]
    first.close()


def test_a_room_gives_what_is_left_when_another_worker_was_quicker() -> None:
    devices = [found(0), found(1)]
    here, there = Gpus(devices, Clock()), Gpus(devices, Clock())
    room = Room(1.0, 1_000, here)
    there.take(Holder("co-9", POOL), "L4", 1)
    reservation = room.reserve("co-1", POOL, overcommit=False)
    assert not isinstance(reservation, str)
    assert reservation.devices == (devices[1],)
    assert room.gpus_of("co-1") == {"L4": 1}
    assert room.reserve("co-2", POOL, overcommit=False) == "no L4 is free"
    room.release("co-1")
    assert room.free == Capacity(1.0, 1_000, {"L4": 0})
    there.close()
    here.close()


@pytest.mark.parametrize(("user", "offered"), [("wk-1", {}), ("wg-1", {"L4": 2}), ("service", {"L4": 2})])
async def test_a_worker_for_cpu_work_offers_no_gpus(user: str, offered: dict[str, int]) -> None:
    registry = new_registry("worker", "1")
    settings = Settings(nats_user=user, worker_gpus={"L4": 2})
    found = await Hardware.find(settings, structlog.get_logger(), Metrics(registry))
    assert found.gpus.free() == offered
    assert found.version == ""
    found.close()


# --- what containers get


def test_a_container_is_told_its_gpus_by_number_and_name() -> None:
    some = (Device(2, "L4", "GPU-c"), Device(5, "L4", "GPU-f"))
    assert variables(some, alone=False) == {
        "CUDA_VISIBLE_DEVICES": "2,5", "NVIDIA_VISIBLE_DEVICES": "GPU-c,GPU-f",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }  # fmt: skip
    assert variables(some, alone=True)["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert variables((), alone=False) == {"CUDA_VISIBLE_DEVICES": "", "NVIDIA_VISIBLE_DEVICES": "void"}


def test_a_sandbox_gets_only_its_own_device_nodes_and_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm", "nvme0"):
        (tmp_path / name).touch()
    for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libcudart.so.12", "libc.so.6"):
        (tmp_path / name).touch()
    monkeypatch.setattr(driver, "_DEV", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    device = Device(0, "L4", "GPU-b", minor=1)
    equipment = Driver(tmp_path).equip((device,), isolated=True)
    assert equipment.early
    assert equipment.nodes == tuple(f"{tmp_path}/{name}" for name in ("nvidia1", "nvidiactl", "nvidia-uvm"))
    assert equipment.files == tuple(
        (f"{tmp_path}/{name}", f"/opt/tidemill/driver/{name}")
        for name in ("libcuda.so.1", "libnvidia-ml.so.1")
    )
    assert equipment.variables["LD_LIBRARY_PATH"] == "/opt/tidemill/driver"
    assert Driver(tmp_path).equip((), isolated=True).nodes == ()


def test_a_plain_process_finds_the_driver_where_the_worker_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(3, "L4", "GPU-b", minor=1)
    found = Driver(tmp_path).equip((device,), isolated=False)
    assert (found.variables["CUDA_VISIBLE_DEVICES"], found.early) == ("3", False)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/somewhere:{tmp_path}")
    found = Driver(tmp_path).equip((device,), isolated=False)
    assert (found.variables["LD_LIBRARY_PATH"], found.early) == (str(tmp_path), True)


HANGING = """
import asyncio, threading
from tidemill_worker.nvml import asked

async def main():
    assert await asked(divmod, 7, 2) == (3, 1)
    await asyncio.wait({asked(threading.Event().wait)}, timeout=0.01)

asyncio.run(main())
"""


def test_a_driver_that_hangs_does_not_hold_the_end_of_the_worker() -> None:
    subprocess.run([sys.executable, "-c", HANGING], check=True, timeout=60)
