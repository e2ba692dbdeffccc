"""How many containers a pool gets: properties of single decisions."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire.specs import Autoscaling
from tidemill_scheduler.decisions import (
    COMING,
    READY,
    ContainerView,
    Failures,
    Gain,
    Look,
    Phase,
    Situation,
    Stretch,
    after_failure,
    decide,
    follow,
    gives_up,
)

NOW = 1_000.0
NO_LIMITS, NO_FAILURES, NO_STRETCH = Autoscaling(), Failures(), Stretch()


def containers(*phases: Phase, since: float = NOW - 1.0) -> tuple[ContainerView, ...]:
    return tuple(ContainerView(f"co-{number}", phase, since) for number, phase in enumerate(phases))


def situation(
    backlog: int = 0,
    views: tuple[ContainerView, ...] = (),
    limits: Autoscaling = NO_LIMITS,
    failures: Failures = NO_FAILURES,
    completed: int = 0,
    stretch: Stretch = NO_STRETCH,
    now: float = NOW,
) -> Situation:
    ready = sum(view.phase in READY for view in views)
    look = Look(now, backlog, completed, ready)
    return Situation(limits, views, look, follow(stretch, look), failures, now)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    views = tuple(
        ContainerView(f"co-{number}", draw(st.sampled_from(Phase)), NOW - draw(st.floats(0, 200)))
        for number in range(draw(st.integers(0, 12)))
    )
    maximum = draw(st.none() | st.integers(1, 20))
    limits = Autoscaling(
        min_containers=draw(st.integers(0, 20 if maximum is None else maximum)),
        max_containers=maximum,
        buffer_containers=draw(st.integers(0, 5)),
        scaledown_window=draw(st.floats(2, 100)),
    )
    count = draw(st.integers(0, 5))
    failures = Failures(count, NOW - 1, NOW + draw(st.floats(-2, 2))) if count else Failures()
    return situation(draw(st.integers(0, 500)), views, limits, failures)


@given(situations())
def test_the_maximum_is_never_exceeded(case: Situation) -> None:
    decision = decide(case)
    if case.limits.max_containers is not None:
        assert (
            decision.start == 0 or case.count(READY | COMING) + decision.start <= case.limits.max_containers
        )


@given(situations())
def test_the_minimum_is_asked_for_and_kept(case: Situation) -> None:
    decision = decide(case)
    assert decision.desired >= case.limits.min_containers
    if decision.stop:
        assert case.count(READY | COMING) - len(decision.stop) >= case.limits.min_containers


@given(situations())
def test_nothing_is_started_and_stopped_at_once(case: Situation) -> None:
    decision = decide(case)
    assert not (decision.start and decision.stop)


@given(situations())
def test_nothing_is_started_beyond_what_waits_is_kept_warm_or_spare(case: Situation) -> None:
    wanted = max(case.look.backlog, case.limits.min_containers) + case.limits.buffer_containers
    assert decide(case).start <= max(0, wanted - case.count(READY | COMING))


@given(situations())
def test_only_idle_containers_are_stopped(case: Situation) -> None:
    idle = {view.container for view in case.containers if view.phase is Phase.IDLE}
    assert set(decide(case).stop) <= idle


@given(situations())
def test_within_the_maximum_only_those_are_stopped_that_idled_through_the_window(case: Situation) -> None:
    limits = replace(case.limits, max_containers=None)
    since = {view.container: view.since for view in case.containers}
    for stopped in decide(replace(case, limits=limits)).stop:
        assert case.now - since[stopped] >= limits.scaledown_window


@given(situations())
def test_a_pool_with_anything_to_watch_is_looked_at_within_a_second(case: Situation) -> None:
    again_in = decide(case).again_in
    if case.containers or case.look.backlog or case.limits.min_containers:
        assert again_in is not None
        assert 0 <= again_in <= 1.0
    else:
        assert again_in is None


@given(situations())
def test_what_waits_gets_a_container_unless_starts_fail(case: Situation) -> None:
    if case.look.backlog and not case.count(READY | COMING) and not case.failures.count:
        assert decide(case).start >= 1


def test_a_sleeping_pool_gets_a_container_for_every_message() -> None:
    assert decide(situation(backlog=7)).start == 7


def test_containers_that_are_coming_are_not_ordered_again() -> None:
    assert (
        decide(situation(backlog=7, views=containers(*[Phase.PLACED] * 3, *[Phase.STARTING] * 4))).start == 0
    )


def test_a_container_that_idles_is_watched_before_others_are_started_beside_it() -> None:
    decision = decide(situation(backlog=50, views=containers(Phase.IDLE)))
    assert decision.start == 0
    assert decision.again_in is not None
    assert decision.again_in <= 0.02


def test_containers_that_are_long_busy_are_not_waited_for() -> None:
    assert decide(situation(backlog=50, views=containers(Phase.BUSY))).start == 49


def test_a_backlog_that_drains_soon_starts_nothing() -> None:
    views = containers(Phase.BUSY, since=NOW)
    before = situation(backlog=200, views=views, now=NOW - 0.02)
    after = situation(backlog=100, views=views, completed=100, stretch=before.stretch)
    assert decide(after).start == 0


def looks(ready: int, rate: float, seconds: float, *, until: float = NOW) -> tuple[Look, ...]:
    """Return looks each 20 ms at a pool with a long queue that finishes `rate` messages a second."""
    count = round(seconds / 0.02)
    begin = until - count * 0.02
    return tuple(Look(begin + n * 0.02, 500, 1_000 + round(rate * n * 0.02), ready) for n in range(count + 1))


def followed(*stretches: tuple[Look, ...]) -> Stretch:
    stretch = Stretch()
    for look in (look for part in stretches for look in part):
        stretch = follow(stretch, look)
    return stretch


def decided(stretch: Stretch, limits: Autoscaling = NO_LIMITS) -> int:
    """Return how many containers are wanted after these looks."""
    look = stretch.looks[-1]
    views = containers(*[Phase.BUSY] * look.ready, since=look.at)
    return decide(Situation(limits, views, look, stretch, NO_FAILURES, look.at)).desired


def test_a_backlog_that_drains_slowly_is_first_met_with_twice_the_containers() -> None:
    assert decided(followed(looks(1, 100.0, 0.04))) == 2
    assert decided(followed(looks(4, 400.0, 0.04))) == 8


def test_a_few_finished_messages_are_not_taken_for_a_pace_at_once() -> None:
    assert decided(followed(looks(1, 40.0, 0.04))) == 1
    assert decided(followed(looks(1, 40.0, 0.06))) == 2


def test_nothing_finished_in_60_ms_means_a_container_for_every_message() -> None:
    assert decided(followed(looks(1, 0.0, 0.04))) == 1
    assert decided(followed(looks(1, 0.0, 0.06))) == 500


def test_when_two_are_twice_as_fast_as_one_the_pace_decides() -> None:
    one = looks(1, 100.0, 0.06, until=NOW)
    two = tuple(
        replace(look, completed=look.completed + 6) for look in looks(2, 200.0, 0.06, until=NOW + 0.08)
    )
    stretch = followed(one, two)
    assert stretch.gain is Gain.PARALLEL
    assert decided(stretch) == 16


def test_when_two_are_no_faster_than_one_the_cores_are_the_limit() -> None:
    one = looks(1, 100.0, 0.06, until=NOW)
    two = tuple(
        replace(look, completed=look.completed + 6) for look in looks(2, 100.0, 0.06, until=NOW + 0.08)
    )
    stretch = followed(one, two)
    assert stretch.gain is Gain.FLAT
    assert decided(stretch) == 2
    later = tuple(
        replace(look, completed=look.completed + 99) for look in looks(2, 100.0, 0.06, until=NOW + 12)
    )
    assert followed((*one, *two, *later)).gain is Gain.UNKNOWN


def test_while_it_is_not_known_whether_more_help_no_more_are_started() -> None:
    one = looks(1, 100.0, 0.06, until=NOW)
    two = tuple(
        replace(look, completed=look.completed + 6) for look in looks(2, 200.0, 0.02, until=NOW + 0.03)
    )
    assert decided(followed(one, two[:1])) == 2


def test_an_excess_that_lasts_gets_more_than_one_that_drains_at_first() -> None:
    views = containers(Phase.BUSY, since=NOW)
    stretch = Stretch(NOW - 8.0, (Look(NOW - 0.1, 8, 0, 1),))
    lasting = situation(backlog=8, views=views, completed=20, stretch=stretch)
    fresh = replace(lasting, stretch=replace(lasting.stretch, began=NOW - 0.1))
    assert decide(fresh).start == 0
    assert decide(lasting).start == 1


def test_single_use_containers_are_started_for_every_message() -> None:
    case = situation(backlog=10, views=containers(Phase.IDLE, Phase.IDLE))
    assert decide(replace(case, single_use=True)).start == 8


def test_buffer_containers_are_kept_only_while_the_pool_is_active() -> None:
    limits = Autoscaling(buffer_containers=2)
    assert decide(situation(backlog=3, views=containers(*[Phase.BUSY] * 3), limits=limits)).start == 2
    assert decide(situation(limits=limits)).start == 0


def test_the_longest_idle_go_first() -> None:
    views = tuple(ContainerView(f"co-{age}", Phase.IDLE, NOW - age) for age in (61.0, 300.0, 90.0, 5.0))
    limits = Autoscaling(min_containers=2)
    assert decide(situation(views=views, limits=limits)).stop == ("co-300.0", "co-90.0")


def test_a_lowered_maximum_stops_idle_containers_without_waiting() -> None:
    limits = Autoscaling(max_containers=1)
    assert decide(situation(views=containers(*[Phase.IDLE] * 3, since=NOW), limits=limits)).stop == (
        "co-0",
        "co-1",
    )


def test_starts_that_fail_together_are_one_failure() -> None:
    failures = Failures()
    for _ in range(16):
        failures = after_failure(failures, placed=NOW, now=NOW + 1)
    assert failures.count == 1


def test_the_pause_between_failing_starts_doubles_up_to_a_minute() -> None:
    failures, now, pauses = Failures(), NOW, []
    for _ in range(14):
        failures = after_failure(failures, placed=now, now=now)
        pauses.append(failures.retry_at - now)
        now = failures.retry_at
    assert [round(pause, 1) for pause in pauses[:4]] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == 60.0


def test_after_a_failure_one_container_is_tried_at_a_time() -> None:
    failures = Failures(1, NOW - 1, NOW - 0.5)
    assert decide(situation(backlog=9, failures=failures)).start == 1
    assert decide(situation(backlog=9, failures=failures, views=containers(Phase.STARTING))).start == 0
    assert decide(situation(backlog=9, failures=replace(failures, retry_at=NOW + 1))).start == 0


def test_an_ephemeral_pool_gives_up_after_three_failures_unless_a_container_works() -> None:
    three = Failures(3, NOW, NOW)
    assert gives_up(three, deployed=False, ready=0, hopeless=False)
    assert not gives_up(Failures(2, NOW, NOW), deployed=False, ready=0, hopeless=False)
    assert not gives_up(three, deployed=False, ready=1, hopeless=False)
    assert not gives_up(three, deployed=True, ready=0, hopeless=True)
    assert gives_up(Failures(1, NOW, NOW), deployed=False, ready=0, hopeless=True)


def test_a_consumer_that_was_made_again_begins_a_new_stretch() -> None:
    stretch = follow(Stretch(), Look(NOW, 10, 500, 1))
    assert follow(stretch, Look(NOW + 0.1, 10, 3, 1)).began == NOW + 0.1
