"""Cores of containers that wait for their own calls."""

import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from waiting import wait_until

from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import FunctionSpec, Pool, Resources, Source
from tidemill_worker.capacity import Room
from tidemill_worker.gpus import Gpus
from tidemill_worker.lending import IDLE, Lending, processor_seconds

POOL = Pool(
    "po-1", "ap-1", "app", "fu-1", "main", "main", "cpu", 0, "INPUTS_cpu_0", "prefix",
    FunctionSpec("f", Source(), resources=Resources(cpu=1.5, memory=100)),
)  # fmt: skip


@dataclass
class Waiter:
    """A container; `used` is its processor time."""

    pid: int
    may_wait: bool = True
    used: float = 1.0


@dataclass
class Worker:
    """A worker of two cores with one container."""

    waiter: Waiter = field(default_factory=lambda: Waiter(1))
    changes: int = 0

    def __post_init__(self) -> None:
        self.room = Room(2.0, 1_000, Gpus((), lambda: 0.0))
        assert not isinstance(self.room.reserve("co-1", POOL, overcommit=False), str)
        self.lending = Lending(
            self.room, lambda: {"co-1": self.waiter}, self.changed, lambda _pid: self.waiter.used
        )

    def changed(self) -> None:
        self.changes += 1


def test_a_container_that_waits_for_its_call_lends_its_cores_and_nothing_else() -> None:
    worker = Worker()
    worker.lending.look()
    assert worker.room.free.cpu == 0.5  # nobody knows yet
    worker.lending.look()
    assert worker.room.free == Capacity(2.0, 900)
    assert worker.changes == 1
    worker.lending.look()
    assert worker.changes == 1


@pytest.mark.parametrize("how", ["works", "has called nothing"])
def test_they_are_taken_back_when_it_works_though_others_use_them(how: str) -> None:
    worker = Worker()
    worker.lending.look()
    worker.lending.look()
    assert not isinstance(worker.room.reserve("co-2", POOL, overcommit=False), str)
    if how == "works":
        worker.waiter.used += 2 * IDLE
    else:
        worker.waiter.may_wait = False
    worker.lending.look()
    assert worker.room.free.cpu == -1.0
    worker.room.release("co-2")
    assert worker.room.free.cpu == 0.5


def test_a_container_that_ends_while_it_lends_leaves_nothing_behind() -> None:
    worker = Worker()
    worker.lending.look()
    worker.lending.look()
    worker.room.release("co-1")
    assert worker.room.free == worker.room.total
    worker.lending.look()
    assert worker.room.free == worker.room.total


def test_processor_time_counts_what_descends_from_a_process() -> None:
    def spent() -> float:
        used = processor_seconds(os.getpid())
        assert used is not None
        return used

    before = spent()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            wait_until(lambda: spent() >= before + 0.1)
        finally:
            child.kill()


def test_of_a_process_that_is_gone_nobody_can_tell() -> None:
    assert processor_seconds(2**22 + 1) is None
