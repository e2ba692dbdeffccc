"""Where containers go."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire.scheduling import Capacity
from tidemill._wire.specs import FunctionSpec, ImageSpec, Pool, Resources, Source
from tidemill_scheduler.placing import (
    Choice,
    IdleContainer,
    Order,
    WorkerView,
    choose,
    explain,
    reclaim,
    unfit,
)


def pool(capability: str = "cpu", labels: dict[str, tuple[str, ...]] | None = None, **resources: Any) -> Pool:
    spec = FunctionSpec("f", Source(), resources=Resources(**resources), labels=labels or {})
    prefix = f"tm.inputs.cpu.0.main.{capability}.po-1"
    return Pool("po-1", "ap-1", "app", "fu-1", "main", "main", capability, 0, "INPUTS_cpu_0", prefix, spec)


def worker(name: str = "wo-1", cpu: float = 2.0, memory: int = 4_096, **changes: Any) -> WorkerView:
    gpus = changes.pop("gpus", {})
    values: dict[str, Any] = {
        "capabilities": frozenset({"cpu", *(f"gpu-{kind}" for kind in gpus)}),
        "labels": {},
        "total": Capacity(cpu, memory, gpus),
        "free": Capacity(cpu, memory, gpus),
    }
    return WorkerView(name, **{**values, **changes})


def order(target: Pool, count: int = 1, *, first: bool = False, excluded: tuple[str, ...] = ()) -> Order:
    return Order(target, "image", count, first, frozenset(excluded))


def names(choice: Choice) -> list[str]:
    return [assignment.worker for assignment in choice.assignments]


def test_a_worker_that_runs_the_pool_comes_first_then_one_with_its_image_then_the_least_loaded() -> None:
    busy = Capacity(1.0, 4_096)
    workers = [
        worker("wo-empty"),
        worker("wo-busy", free=busy),
        worker("wo-image", images=frozenset({"image"}), free=busy),
        worker("wo-pool", pools=frozenset({"po-1"}), free=busy),
    ]
    seen = []
    while workers:
        best = names(choose(order(pool()), workers))[0]
        seen.append(best)
        workers = [view for view in workers if view.worker != best]
    assert seen == ["wo-pool", "wo-image", "wo-empty", "wo-busy"]


def test_many_containers_are_spread_by_load() -> None:
    chosen = names(choose(order(pool(cpu=0.5), 4), [worker("wo-1"), worker("wo-2")]))
    assert sorted(chosen) == ["wo-1", "wo-1", "wo-2", "wo-2"]


def test_a_worker_starts_a_bounded_number_at_once_and_the_rest_has_room_later() -> None:
    choice = choose(order(pool(), 16), [worker()])
    assert len(choice.assignments) == 8
    assert choice.without_room == 0


def test_what_fits_nowhere_is_told_as_without_room() -> None:
    choice = choose(order(pool(cpu=1.0), 5), [worker()])
    assert len(choice.assignments) == 2
    assert choice.without_room == 3


def test_the_first_container_of_a_pool_may_overcommit_the_cores_but_not_the_memory() -> None:
    full = worker(free=Capacity(0.0, 4_096))
    assert choose(order(pool(), 3, first=True), [full]).assignments[0].overcommit
    assert not choose(order(pool(), 3), [full]).assignments
    assert not choose(order(pool(), 3, first=True), [worker(free=Capacity(0.0, 64))]).assignments


def test_draining_and_excluded_workers_get_nothing() -> None:
    workers = [worker("wo-1", draining=True), worker("wo-2")]
    assert not choose(order(pool(), 1, excluded=("wo-2",)), workers).assignments


def test_a_worker_that_was_silent_comes_last() -> None:
    warm = frozenset({"po-1"})
    assert names(choose(order(pool()), [worker("wo-1", shunned=True, pools=warm), worker("wo-2")])) == [
        "wo-2"
    ]


def test_a_list_of_gpus_is_an_order_of_preference() -> None:
    wish = pool("H100+A100", gpus=(("H100", 2), ("A100", 1)))
    small, large = worker("wo-a", gpus={"A100": 4}), worker("wo-h", gpus={"H100": 2})
    assert names(choose(order(wish, 3), [small, large])) == ["wo-h", "wo-a", "wo-a"]


def test_any_gpu_is_any_gpu_and_a_cpu_worker_has_none() -> None:
    wish = pool("gpu-any", gpus=(("any", 1),))
    assert names(choose(order(wish), [worker("wo-cpu"), worker("wo-t4", gpus={"T4": 1})])) == ["wo-t4"]


def test_what_was_asked_for_comes_before_what_may_stand_in_for_it() -> None:
    wish = pool("gpu-H100", gpus=(("H100", 1),))
    workers = [worker("wo-1", gpus={"H200": 1}), worker("wo-2", gpus={"H100": 1})]
    assert names(choose(order(wish, 2), workers)) == ["wo-2", "wo-1"]
    exactly = pool("gpu-H100", gpus=(("H100!", 1),))
    assert unfit(exactly, worker(gpus={"H200": 1})) == "has no such GPUs"


def test_a_gpu_that_is_set_aside_is_none() -> None:
    wish = pool("gpu-L4", gpus=(("L4", 1),))
    assert explain(wish, [worker(gpus={"L4": 0})])[0] == "no worker has a GPU of type L4; there are: none"


def test_an_image_goes_where_its_python_is_if_that_is_anywhere() -> None:
    image = ImageSpec((("debian_slim", {"python_version": "3.12.4"}),))
    wish = pool()
    wish = replace(wish, spec=replace(wish.spec, image=image))
    without = worker("wo-1", cpu=8.0)
    having = worker("wo-2", labels={"python-3.12": "yes"})
    assert names(choose(order(wish), [without, having])) == ["wo-2"]
    assert names(choose(order(wish), [without])) == ["wo-1"]


def test_gpu_workers_are_left_to_those_who_need_them() -> None:
    assert names(choose(order(pool()), [worker("wo-gpu", gpus={"T4": 1}), worker("wo-cpu", cpu=1.0)])) == [
        "wo-cpu"
    ]


def test_a_worker_of_a_local_stack_is_in_every_region() -> None:
    wish = pool(labels={"region": ("eu",), "cloud": ("aws",)})
    assert names(choose(order(wish), [worker(labels={"region": "*", "cloud": "*"})])) == ["wo-1"]


def test_labels_restrict_the_choice() -> None:
    wish = pool(labels={"region": ("eu", "us")})
    workers = [
        worker("wo-1"),
        worker("wo-2", labels={"region": "asia"}),
        worker("wo-3", labels={"region": "us"}),
    ]
    assert names(choose(order(wish, 2), workers)) == ["wo-3", "wo-3"]


@pytest.mark.parametrize(
    ("wish", "workers", "message"),
    [
        (pool(), [], "no worker is connected"),
        (pool(), [worker(draining=True)], "no worker is connected"),
        (
            pool("gpu-H100", gpus=(("H100", 1),)),
            [worker(gpus={"T4": 1}), worker("wo-2", gpus={"A100": 2})],
            "no worker has a GPU of type H100; there are: 2 x A100, T4",
        ),
        (
            pool("gpu-H100", gpus=(("H100", 8),)),
            [worker()],
            "no worker has a GPU of type 8 x H100; there are: none",
        ),
        (pool(cpu=64), [worker()], "no worker fits 64 cores, 128 MiB: wo-1 has 2 cores"),
        (pool(memory=9_000), [worker()], "no worker fits 0.125 cores, 9000 MiB: wo-1 has 4096 MiB of memory"),
        (
            pool(labels={"region": ("eu",)}),
            [worker(labels={"region": "us"})],
            "no worker fits 0.125 cores, 128 MiB, region eu: wo-1 its region is us",
        ),
    ],
)
def test_callers_are_told_what_is_missing(wish: Pool, workers: list[WorkerView], message: str) -> None:
    assert explain(wish, workers)[0] == message


@given(
    cpu=st.floats(0.1, 4),
    memory=st.integers(64, 4_096),
    count=st.integers(0, 40),
    rooms=st.lists(st.tuples(st.floats(0, 8), st.integers(0, 8_192)), max_size=6),
)
def test_no_worker_is_given_more_than_it_has_room_for(
    cpu: float, memory: int, count: int, rooms: list[tuple[float, int]]
) -> None:
    wish = pool(cpu=cpu, memory=memory)
    workers = [worker(f"wo-{n}", 8.0, 8_192, free=Capacity(*room)) for n, room in enumerate(rooms)]
    chosen = names(choose(order(wish, count), workers))
    assert len(chosen) <= count
    for view in workers:
        given_to = chosen.count(view.worker)
        assert given_to * cpu <= view.free.cpu + 1e-6
        assert given_to * memory <= view.free.memory


def test_room_is_made_by_the_longest_idle_of_other_pools_and_no_more_than_needed() -> None:
    small = Resources()
    idle = [IdleContainer(f"co-{age}", "wo-1", age, small) for age in (3.0, 50.0, 0.01, 20.0)]
    assert reclaim(pool(), 2, [worker()], idle) == ["co-50.0", "co-20.0"]
    assert reclaim(pool(cpu=0.25, memory=128), 1, [worker()], idle) == ["co-50.0", "co-20.0"]


def test_only_what_helps_is_stopped_to_make_room() -> None:
    idle = [IdleContainer("co-1", "wo-1", 50.0, Resources())]
    assert reclaim(pool("gpu-T4", gpus=(("T4", 1),)), 1, [worker(gpus={"T4": 1})], idle) == []
    others = [IdleContainer("co-2", "wo-1", 50.0, Resources(), {"L4": 1})]
    assert reclaim(pool("gpu-T4", gpus=(("T4", 1),)), 1, [worker(gpus={"T4": 1, "L4": 1})], others) == []
    assert reclaim(pool(cpu=64), 1, [worker()], idle) == []


def test_as_many_idle_containers_make_room_as_have_the_gpus_that_are_wanted() -> None:
    here = worker(gpus={"L4": 4})
    idle = [IdleContainer(f"co-{age}", "wo-1", age, Resources(), {"L4": 1}) for age in (9.0, 30.0, 20.0)]
    assert reclaim(pool("gpu-L4", gpus=(("L4", 2),)), 1, [here], idle) == ["co-30.0", "co-20.0"]
    assert reclaim(pool("gpu-any", gpus=(("any", 1),)), 1, [here], idle) == ["co-30.0"]


def test_a_worker_that_fits_has_no_reason_against_it() -> None:
    assert unfit(pool(), worker()) == ""
