"""Containers that are out of date make way: single decisions, and whole rollouts over time."""

from dataclasses import replace

import pytest
from hypothesis import given
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
)
from tidemill_scheduler.rollouts import Plan, Rollout, plan

NOW = 1_000.0
ROLLING, RECREATE = Rollout(generation=1), Rollout(generation=1, recreate=True)
SUPERSEDED = Rollout(superseded=True)


def view(number: int, phase: Phase, *, new: bool = False) -> ContainerView:
    """Return a container that idled for long: an old one, or one of generation 1."""
    return ContainerView(f"co-{number}", phase, NOW - 100, generation=int(new))


def decided(
    views: tuple[ContainerView, ...],
    rollout: Rollout,
    *,
    backlog: int = 0,
    full: bool = False,
    **limits: int | None,
) -> Plan:
    ready = sum(one.phase in READY for one in views)
    look = Look(NOW, backlog, 0, ready)
    scaling = Autoscaling(**limits)  # type: ignore[arg-type]
    situation = Situation(scaling, views, look, Stretch(), Failures(), NOW, is_full=full)
    return plan(situation, decide(situation), rollout)


# --- a pool that another version's took the place of


def test_idle_containers_of_an_earlier_version_go() -> None:
    views = (view(0, Phase.IDLE), view(1, Phase.BUSY), view(2, Phase.STARTING))
    made = decided(views, SUPERSEDED, backlog=1)
    assert (made.drain, made.kill, made.decision.stop, made.decision.start) == (("co-0",), (), (), 0)


def test_they_stay_until_the_new_version_has_its_minimum() -> None:
    views = (view(0, Phase.IDLE), view(1, Phase.IDLE))
    made = decided(views, replace(SUPERSEDED, held=True))
    assert (made.drain, made.kill, made.decision.stop) == ((), (), ())


def test_recreate_stops_all_of_them_at_once_and_starts_none_before_they_are_gone() -> None:
    rollout = replace(SUPERSEDED, recreate=True)
    views = (view(0, Phase.IDLE), view(1, Phase.BUSY), view(2, Phase.STARTING), view(3, Phase.STOPPING))
    made = decided(views, rollout, backlog=5)
    assert (made.kill, made.drain, made.decision.start) == (("co-0", "co-1", "co-2"), (), 0)
    made = decided((view(3, Phase.STOPPING),), rollout, backlog=5)
    assert (made.kill, made.decision.start) == ((), 0)
    assert decided((), rollout, backlog=5).decision.start == 5


@pytest.mark.parametrize("recreate", [False, True])
def test_containers_that_an_earlier_version_started_for_a_caller_are_left_alone(recreate: bool) -> None:
    placed_since = replace(view(0, Phase.IDLE), superseded=True, since=NOW - 1)
    made = decided((placed_since,), replace(SUPERSEDED, recreate=recreate))
    assert (made.drain, made.kill, made.decision.stop) == ((), (), ())
    made = decided((replace(placed_since, since=NOW - 100),), replace(SUPERSEDED, recreate=recreate))
    assert made.decision.stop == ("co-0",)  # the window is over


# --- a new generation of the same pool


def test_a_new_container_comes_before_the_old_one_goes() -> None:
    made = decided((view(0, Phase.IDLE),), ROLLING, min_containers=1)
    assert (made.decision.start, made.drain) == (1, ())
    made = decided((view(0, Phase.IDLE), view(1, Phase.STARTING, new=True)), ROLLING, min_containers=1)
    assert (made.decision.start, made.drain) == (0, ())
    made = decided((view(0, Phase.IDLE), view(1, Phase.IDLE, new=True)), ROLLING, min_containers=1)
    assert (made.decision.start, made.drain) == (0, ("co-0",))


def test_busy_ones_are_replaced_too_after_those_that_are_idle() -> None:
    views = (view(0, Phase.BUSY), view(1, Phase.IDLE), view(2, Phase.IDLE, new=True))
    assert decided(views, ROLLING, backlog=1, min_containers=1).drain == ("co-1", "co-0")


def test_what_nobody_needs_just_goes() -> None:
    made = decided((view(0, Phase.IDLE), view(1, Phase.IDLE)), ROLLING)
    assert (made.decision.start, set(made.drain)) == (0, {"co-0", "co-1"})


def test_at_the_maximum_the_old_one_goes_first() -> None:
    made = decided((view(0, Phase.BUSY),), ROLLING, backlog=1, max_containers=1)
    assert (made.decision.start, made.drain) == (0, ("co-0",))


def test_without_room_for_both_the_old_one_goes_first() -> None:
    made = decided((view(0, Phase.IDLE),), ROLLING, min_containers=1, full=True)
    assert made.drain == ("co-0",)


def test_recreate_replaces_a_generation_at_once() -> None:
    views = (view(0, Phase.IDLE), view(1, Phase.BUSY))
    made = decided(views, RECREATE, backlog=1, min_containers=2)
    assert (made.kill, made.decision.start) == (("co-0", "co-1"), 0)
    assert decided((), RECREATE, backlog=1, min_containers=2).decision.start == 2


@given(
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(0, 8),
    st.none() | st.integers(8, 12),
    st.booleans(),
)
def test_a_rollover_ends_with_new_containers_only_and_is_never_short_of_its_minimum(
    idle: int, busy: int, minimum: int, maximum: int | None, recreate: bool
) -> None:
    minimum = min(minimum, idle + busy)
    old = [view(number, Phase.IDLE if number < idle else Phase.BUSY) for number in range(idle + busy)]
    rollout = RECREATE if recreate else ROLLING
    views = {one.container: one for one in old[: maximum or None]}
    minimum = min(minimum, len(views))
    for _ in range(100):
        backlog = sum(one.phase is Phase.BUSY for one in views.values())
        made = decided(
            tuple(views.values()), rollout, backlog=backlog, min_containers=minimum, max_containers=maximum
        )
        ready = sum(one.phase in READY for one in views.values())
        gone = (*made.drain, *made.kill, *made.decision.stop)
        if not recreate and (maximum is None or minimum < maximum):
            assert ready - len(gone) >= minimum
        for name in gone:
            del views[name]
        for number in range(made.decision.start):
            started = view(1_000 + len(views) + number, Phase.STARTING, new=True)
            views[f"{started.container}-{_}"] = replace(started, container=f"{started.container}-{_}")
        if maximum is not None:
            assert sum(one.phase in READY | COMING for one in views.values()) <= maximum
        for name, one in list(views.items()):
            if one.phase is Phase.STARTING:
                views[name] = replace(one, phase=Phase.IDLE)
    assert all(one.generation == 1 for one in views.values())
    assert len(views) >= minimum
