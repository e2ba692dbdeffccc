"""The fleet: what reports, orders and silence make of it."""

from dataclasses import replace
from typing import Any

from tidemill._wire.scheduling import Capacity, ContainerState, WorkerState
from tidemill._wire.specs import FunctionSpec, Pool, Source
from tidemill_scheduler.decisions import Phase
from tidemill_scheduler.workers import Fleet, Spare

POOL = Pool(
    "po-1",
    "ap-1",
    "app",
    "fu-1",
    "main",
    "main",
    "cpu",
    0,
    "INPUTS_cpu_0",
    "tm.inputs.cpu.0.main.cpu.po-1",
    FunctionSpec("f", Source()),
)


class Clock:
    """A clock that jumps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def report(*containers: tuple[str, str], worker: str = "wo-1", **changes: Any) -> WorkerState:
    state = WorkerState(
        worker=worker,
        capabilities=("cpu",),
        labels={},
        total=Capacity(2.0, 4_096),
        free=Capacity(2.0, 4_096),
        containers=tuple(ContainerState(name, "po-1", phase, since=1.0) for name, phase in containers),
        leases=(),
        runtime="process",
        pid=7,
        host="here",
        version="1",
    )
    return replace(state, **changes)


def phases(fleet: Fleet) -> dict[str, Phase]:
    return {view.container: view.phase for view in fleet.containers("po-1")}


def test_a_worker_is_lost_after_four_seconds_of_silence_on_the_own_clock() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.report(report(("co-1", "busy"), leases=("$JS.ACK.1", "$JS.ACK.2")))
    clock.now += 4.0
    assert fleet.reap() == []
    clock.now += 0.1
    (lost,) = fleet.reap()
    assert lost.leases == ("$JS.ACK.1", "$JS.ACK.2")
    assert lost.pools == {"po-1"}
    assert fleet.containers("po-1") == ()
    assert fleet.states() == ()
    assert fleet.reap() == []


def test_silence_that_was_this_replicas_own_fault_kills_nobody() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.report(report())
    clock.now += 60.0
    fleet.forgive()
    assert fleet.reap() == []


def test_lost_workers_are_known_to_the_next_leader_for_ten_seconds() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    for name in ("wo-1", "wo-2"):
        fleet.report(report(worker=name))
        clock.now += 8.0
        fleet.reap()
    assert [lost.worker for lost in fleet.lately_lost()] == ["wo-1", "wo-2"]
    clock.now += 5.0
    assert [lost.worker for lost in fleet.lately_lost()] == ["wo-2"]


def test_the_record_of_a_lost_worker_does_not_bring_it_back() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.report(report())
    clock.now += 8.0
    fleet.reap()
    fleet.report(report(), heard=False)
    assert fleet.states() == ()
    fleet.report(report())
    assert len(fleet.states()) == 1


def test_a_worker_that_was_started_again_under_its_name_lost_what_it_held() -> None:
    fleet = Fleet(Clock())
    fleet.report(report(("co-1", "busy"), leases=("$JS.ACK.1",)))
    news = fleet.report(report(pid=8))
    assert news.lost is not None
    assert news.lost.leases == ("$JS.ACK.1",)
    assert phases(fleet) == {}


def test_an_order_takes_room_until_a_report_shows_the_container() -> None:
    fleet = Fleet(Clock())
    fleet.report(report())
    fleet.asked("co-1", POOL, "wo-1")
    (view,) = fleet.views(str)
    assert (view.free.cpu, view.free.memory, view.starting) == (1.875, 3_968, 1)
    fleet.report(report(("co-1", "starting"), free=Capacity(1.875, 3_968)))
    (view,) = fleet.views(str)
    assert (view.free.cpu, view.free.memory, view.starting) == (1.875, 3_968, 1)


def test_a_report_sent_before_an_order_was_taken_does_not_make_it_forgotten() -> None:
    fleet = Fleet(Clock())
    fleet.report(report())
    fleet.asked("co-1", POOL, "wo-1")
    assert fleet.report(report()).stillborn == ()
    assert phases(fleet) == {"co-1": Phase.PLACED}


def test_an_order_that_no_report_shows_is_given_up_after_two_seconds() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.report(report())
    fleet.asked("co-1", POOL, "wo-1")
    clock.now += 1.9
    assert fleet.unreported() == []
    clock.now += 0.2
    assert [container.container for container in fleet.unreported()] == ["co-1"]
    assert phases(fleet) == {}


def test_a_refused_order_gives_its_room_back_and_its_worker_comes_last_for_a_second() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.report(report())
    fleet.asked("co-1", POOL, "wo-1")
    fleet.refused("co-1", "wo-1")
    (view,) = fleet.views(str)
    assert (view.free.cpu, view.shunned) == (2.0, True)
    clock.now += 1.1
    assert not fleet.views(str)[0].shunned


def test_only_changes_that_matter_ring_a_pool() -> None:
    fleet = Fleet(Clock())
    assert fleet.report(report(("co-1", "starting"))).pools == {"po-1"}
    assert fleet.report(report(("co-1", "starting"))).pools == frozenset()
    assert fleet.report(report(("co-1", "idle"))).pools == {"po-1"}
    assert fleet.report(report(("co-1", "busy"))).pools == frozenset()
    assert fleet.report(report()).pools == {"po-1"}


def test_a_container_that_worked_between_two_reports_is_idle_anew() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.report(report(("co-1", "idle")))
    clock.now += 50.0
    again = ContainerState("co-1", "po-1", "idle", since=49.0)
    fleet.report(report(containers=(again,)))
    assert fleet.containers("po-1")[0].since == clock.now


def test_a_container_that_ends_before_it_was_ready_is_stillborn_unless_it_was_told_to_stop() -> None:
    fleet = Fleet(Clock())
    fleet.report(report(("co-1", "starting"), ("co-2", "starting"), ("co-3", "idle")))
    fleet.stopping(("co-2",))
    assert [container.container for container in fleet.report(report()).stillborn] == ["co-1"]


def test_a_container_that_was_told_to_stop_counts_no_more_for_two_seconds() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.report(report(("co-1", "idle")))
    assert fleet.stopping(("co-1", "co-unknown")) == {"wo-1": ("co-1",)}
    assert phases(fleet) == {"co-1": Phase.STOPPING}
    clock.now += 2.5
    assert phases(fleet) == {"co-1": Phase.IDLE}


def test_a_record_of_the_bucket_tells_of_a_worker_but_not_that_it_lives() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.report(report(leases=("$JS.ACK.1",)), heard=False)
    assert not fleet.all_heard()
    assert fleet.views(str)[0].shunned
    clock.now += 4.1
    assert [lost.leases for lost in fleet.reap()] == [("$JS.ACK.1",)]


def test_a_record_of_the_bucket_does_not_replace_a_report() -> None:
    fleet = Fleet(Clock())
    fleet.report(report(("co-1", "idle")))
    fleet.report(report(), heard=False)
    assert fleet.all_heard()
    assert phases(fleet) == {"co-1": Phase.IDLE}


def test_room_that_came_free_is_news() -> None:
    fleet = Fleet(Clock())
    assert fleet.report(report(free=Capacity(0.0, 4_096))).room
    assert not fleet.report(report(free=Capacity(0.0, 4_096))).room
    assert fleet.report(report(free=Capacity(1.0, 4_096))).room
    assert not fleet.report(report(free=Capacity(0.5, 4_096))).room


def test_the_longest_idle_of_a_pool_are_offered_as_spare() -> None:
    clock = Clock()
    fleet = Fleet(clock)
    fleet.report(report(("co-1", "idle")))
    clock.now += 5.0
    fleet.report(report(("co-1", "idle"), ("co-2", "idle"), ("co-3", "busy")))
    clock.now += 5.0
    offered = list(fleet.idle({"po-1": Spare(1, POOL.spec.resources)}))
    assert [(one.container, one.idle) for one in offered] == [("co-1", 10.0)]


def test_an_event_that_a_container_is_ready_is_ahead_of_the_report() -> None:
    fleet = Fleet(Clock())
    fleet.report(report(("co-1", "starting")))
    fleet.started("co-1", "wo-1")
    assert phases(fleet) == {"co-1": Phase.IDLE}
    fleet.report(report(("co-1", "starting")))  # made before
    assert phases(fleet) == {"co-1": Phase.IDLE}
    assert fleet.report(report()).stillborn == ()
