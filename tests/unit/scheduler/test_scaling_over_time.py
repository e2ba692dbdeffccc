"""Decisions in a row, in virtual time: one worker of 16 slots, containers that start and work."""

import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill._wire.specs import Autoscaling
from tidemill_scheduler.simulation import STARTS_AT_ONCE, Simulated, main, read_trace, replay


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


def by_chance(seed: int, rate: float, seconds: float) -> list[tuple[float, int]]:
    """Return a trace of inputs that come by chance."""
    dice, at, trace = random.Random(seed), 0.0, []
    while at < seconds:
        trace.append((at, 1))
        at += dice.expovariate(rate)
    return trace


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.012, 0.06, 0.2]), st.sampled_from([16, 100]))
def test_a_jump_to_500_calls_a_second_is_cleared_within_three_seconds_of_enough_slots(
    seed: int, start: float, slots: int
) -> None:
    trace = by_chance(seed, 500.0, 6.0)
    pool = Simulated(seconds=0.02, slots=slots, start=start)
    replay(pool, trace)
    enough = pool.ready_at[11]  # ten are busy on average
    late = [at + wait for (at, _), wait in zip(trace, pool.waits, strict=True) if wait > 0.05]
    assert max(late, default=0.0) < enough + 3.0
    assert pool.started <= 40


def test_what_starts_slowly_is_started_no_more_often_than_it_is_of_use() -> None:
    counts = []
    for start in (0.012, 0.3):
        pool = Simulated(seconds=0.02, slots=100, start=start)
        replay(pool, by_chance(1, 300.0, 6.0))
        counts.append(pool.started)
    assert counts[1] <= counts[0]
    assert counts[1] <= 12  # six are busy on average


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    seconds=st.sampled_from([0.05, 0.3, 1.0]),
    busy=st.sampled_from([0.5, 2.0, 6.0]),
    window=st.sampled_from([2.0, 10.0]),
)
def test_under_noise_containers_go_only_when_idle_and_come_only_when_missing(
    seed: int, seconds: float, busy: float, window: float
) -> None:
    pool = Simulated(seconds, Autoscaling(scaledown_window=window))
    last = 30.0
    summary = replay(pool, by_chance(seed, busy / seconds, last))
    assert all(idle >= window for idle in pool.stopped_after)
    assert all(missing > 0 for missing in pool.missing)
    assert summary.containers_started <= summary.most_containers * (1 + last / window)
    assert summary.waiting <= 0.2 * max(summary.busy, 1.0)


def test_noise_around_a_steady_load_starts_less_than_one_container_in_a_window() -> None:
    trace = by_chance(7, 20.0, 300.0)
    pool = Simulated(seconds=0.1, limits=Autoscaling(scaledown_window=10.0))
    summary = replay(pool, trace)
    assert summary.containers_started < 300.0 / 10.0
    assert summary.median_wait < 0.001
    assert summary.busy == pytest.approx(0.1 * len(trace))


def test_waiting_and_idle_seconds_are_counted() -> None:
    pool = Simulated(seconds=1.0, limits=Autoscaling(max_containers=1, scaledown_window=5.0), start=0.5)
    summary = replay(pool, [(0.0, 2)])
    assert summary.waiting == pytest.approx(0.5 + 1.5, abs=0.05)
    assert summary.idle == pytest.approx(5.0, abs=0.05)
    assert (summary.busy, summary.containers_started) == (pytest.approx(2.0), 1)


def test_a_trace_is_replayed_by_the_program(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("# seconds, inputs\n0\n0.5,10\n\n")
    done = CliRunner().invoke(main, [str(trace), "--seconds", "0.02", "--max-containers", "1"])
    assert done.exit_code == 0
    assert "inputs                        11" in done.output
    assert "most_containers                1" in done.output
    trace.write_text("0\nsoon\n")
    done = CliRunner().invoke(main, [str(trace), "--seconds", "0.02"])
    assert done.exit_code == 1
    assert "line 2 is no moment" in done.output
    assert read_trace([]) == []
