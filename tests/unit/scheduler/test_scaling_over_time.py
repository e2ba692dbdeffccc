"""Decisions in a row, in virtual time: one worker of 16 slots, containers that start and work.

The simulation knows only what the scheduler knows: bells, looks at a queue, reports of containers.
"""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill._wire.specs import Autoscaling
from tidemill_scheduler.decisions import (
    COMING,
    READY,
    ContainerView,
    Failures,
    Look,
    Phase,
    Situation,
    Stretch,
    decide,
    follow,
)

START = 0.012  # seconds that a container takes to start when it has a core to itself
CORES = 2
FREE_CORES = 1.0  # what caller, server and worker leave
STARTS_AT_ONCE = 8
LOOK_EVERY = 0.02


@dataclass
class Simulated:
    """One pool whose messages take `seconds` each."""

    seconds: float
    limits: Autoscaling = field(default_factory=Autoscaling)
    needs_cores: bool = False  # computes instead of sleeping
    slots: int = 16
    now: float = 0.0
    queue: deque[float] = field(default_factory=deque)
    views: dict[str, ContainerView] = field(default_factory=dict)
    completed: int = 0
    started: int = 0
    most: int = 0
    finished: float = 0.0
    waits: list[float] = field(default_factory=list)
    ready_at: list[float] = field(default_factory=list)
    stretch: Stretch = field(default_factory=Stretch)
    _events: list[tuple[float, int, str, str]] = field(default_factory=list)
    _number: int = 0
    _looked: float = -1.0
    _look_due: float = float("inf")

    def arrive(self, at: float, count: int = 1) -> None:
        for _ in range(count):
            self._at(at, "arrive", "")

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, kind, name = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(name)
        self.now = until

    def _at(self, when: float, kind: str, name: str) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, kind, name))

    def _bell(self) -> None:
        due = max(self.now, self._looked + LOOK_EVERY)
        if due < self._look_due:
            self._look_due = due
            self._at(due, "look", "")

    def _arrive(self, _: str) -> None:
        self.queue.append(self.now)
        self._work()
        self._bell()

    def _look(self, _: str) -> None:
        if self.now < self._look_due:
            return
        self._looked, self._look_due = self.now, float("inf")
        views = tuple(self.views.values())
        busy = sum(view.phase is Phase.BUSY for view in views)
        look = Look(
            self.now, len(self.queue) + busy, self.completed, sum(view.phase in READY for view in views)
        )
        self.stretch = follow(self.stretch, look)
        decision = decide(Situation(self.limits, views, look, self.stretch, Failures(), self.now))
        for name in decision.stop:
            del self.views[name]
        coming = sum(view.phase in COMING for view in views)
        room = min(STARTS_AT_ONCE - coming, self.slots - len(self.views))
        for _n in range(max(0, min(decision.start, room))):
            self._place()
        if decision.again_in is not None:
            self._look_due = self.now + max(decision.again_in, 1e-6)
            self._at(self._look_due, "look", "")

    def _place(self) -> None:
        self.started += 1
        name = f"co-{self.started}"
        self.views[name] = ContainerView(name, Phase.STARTING, self.now)
        self.most = max(self.most, len(self.views))
        starting = sum(view.phase in COMING for view in self.views.values())
        self._at(self.now + START * max(1.0, starting / CORES), "ready", name)

    def _ready(self, name: str) -> None:
        self.views[name] = ContainerView(name, Phase.IDLE, self.now)
        self.ready_at.append(self.now)
        self._work()
        self._bell()

    def _work(self) -> None:
        idle = [name for name, view in self.views.items() if view.phase is Phase.IDLE]
        for name in idle:
            if self.queue:
                self.waits.append(self.now - self.queue.popleft())
                self.views[name] = ContainerView(name, Phase.BUSY, self.now)
                self._at(self.now + self._takes(), "done", name)

    def _takes(self) -> float:
        busy = sum(view.phase is Phase.BUSY for view in self.views.values())
        return self.seconds * (max(1.0, busy / FREE_CORES) if self.needs_cores else 1.0)

    def _done(self, name: str) -> None:
        self.completed += 1
        self.finished = self.now
        self.views[name] = ContainerView(name, Phase.IDLE, self.now)
        self._work()


def test_a_map_of_short_sleeps_has_all_its_containers_within_a_tenth_of_a_second() -> None:
    pool = Simulated(seconds=0.01)
    pool.arrive(0.0, 200)
    pool.run(until=5.0)
    assert pool.completed == 200
    assert len(pool.ready_at) == 16
    assert pool.ready_at[-1] <= 0.11
    assert pool.finished <= 0.25


def test_a_burst_of_tiny_executions_starts_nothing_beside_a_warm_container() -> None:
    pool = Simulated(seconds=0.0002)
    pool.arrive(0.0)
    pool.run(until=1.0)
    pool.arrive(1.0, 300)
    pool.run(until=2.0)
    assert (pool.completed, pool.started) == (301, 1)


def test_a_cold_burst_of_tiny_executions_starts_no_more_than_one_round() -> None:
    pool = Simulated(seconds=0.0002)
    pool.arrive(0.0, 1_000)
    pool.run(until=2.0)
    assert pool.completed == 1_000
    assert pool.started <= STARTS_AT_ONCE


def test_chunks_that_need_the_cores_do_not_fill_the_worker_with_containers() -> None:
    pool = Simulated(seconds=0.015, needs_cores=True)
    pool.arrive(0.0)
    pool.run(until=1.0)
    pool.arrive(1.0, 100)
    pool.run(until=10.0)
    assert pool.completed == 101
    assert pool.started <= 4


def test_a_map_of_short_sleeps_on_one_warm_container_is_spread_soon() -> None:
    pool = Simulated(seconds=0.01)
    pool.arrive(0.0)
    pool.run(until=1.0)
    pool.arrive(1.0, 200)
    pool.run(until=5.0)
    assert len(pool.ready_at) == 16
    assert pool.ready_at[-1] <= 1.25


def test_a_long_call_does_not_keep_the_next_one_waiting() -> None:
    pool = Simulated(seconds=10.0)
    pool.arrive(0.0)
    pool.arrive(3.0)
    pool.run(until=20.0)
    assert max(pool.waits) < 0.05


def test_an_idle_pool_goes_to_zero_after_its_window_and_not_before() -> None:
    pool = Simulated(seconds=0.01, limits=Autoscaling(scaledown_window=30.0))
    pool.arrive(0.0, 50)
    pool.run(until=30.0)
    there = len(pool.views)
    pool.run(until=31.5)
    assert there > 0
    assert not pool.views


def test_a_steady_caller_never_meets_a_cold_start_again() -> None:
    pool = Simulated(seconds=0.005, limits=Autoscaling(scaledown_window=2.0))
    for number in range(100):
        pool.arrive(number * 1.0)
    pool.run(until=100.0)
    assert pool.started == 1
    assert max(pool.waits[1:]) < 0.001


def test_the_minimum_stays_warm_for_ever() -> None:
    pool = Simulated(seconds=0.01, limits=Autoscaling(min_containers=3, scaledown_window=2.0))
    pool.arrive(0.0, 100)
    pool.run(until=1_000.0)
    assert len(pool.views) == 3
    assert pool.started <= 16


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    seconds=st.sampled_from([0.0005, 0.005, 0.05, 0.5]),
    rate=st.sampled_from([0.5, 5.0, 50.0]),
    maximum=st.none() | st.integers(1, 10),
)
def test_whatever_arrives_is_finished_without_flapping(
    seed: int, seconds: float, rate: float, maximum: int | None
) -> None:
    dice, at = random.Random(seed), 0.0
    pool = Simulated(seconds, Autoscaling(max_containers=maximum, scaledown_window=5.0))
    for _ in range(200):
        at += dice.expovariate(rate)
        pool.arrive(at)
    pool.run(until=at + 200 * seconds + 10.0)
    assert pool.completed == 200
    assert not pool.views
    assert pool.most <= (maximum or 16)
    # A container is started for a reason: at most once per window and slot.
    assert pool.started <= 16 * (1 + at / 5.0)
