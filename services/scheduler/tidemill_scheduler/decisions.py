"""How many containers a pool should have: values in, a decision out, no clock and no server.

Up at once, down only after idleness. A sleeping pool gets a container for every message that waits. Where
containers already run, messages may be chunks of tiny executions and the cores may be busy, so:

    measure      the pace of those that run, for 20 to 60 ms
    slow         nothing finished in that time: a container for every message
    soon done    the backlog drains within about 50 ms: nothing is started
    else         twice as many, and then the judgement: did the pool become faster by it?
                 yes: as many as the pace asks for, at most eight times as many at once;
                 no: no more, the cores are the limit

A judgement holds for ten seconds. The 50 ms tighten to 5 while the excess lasts, but are never less than a
start takes: by then the others would be done, and starting costs the cores that the work needs.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise, takewhile

from tidemill._wire.specs import Autoscaling

MEASURE = 0.02  # seconds of work looked at before a running pool grows
SLOW = 0.06  # seconds of work without a finished message that show long executions
EVIDENCE = 3  # finished messages that show a pace
RECENT = 0.2  # seconds of work that the pace is taken from
JUDGED = 10.0  # seconds for which a judgement holds
TELLING = 1.5  # times as many containers: the pace of fewer than that more shows nothing
WORTH_IT = 0.2  # of what so many more containers promise must be seen for "parallel"
STEP, LEAP = 2, 8  # times as many containers at once, while it is not known that they help, and when it is
DRAIN_WITHIN = 0.05  # seconds in which a backlog may drain without another container
DRAIN_AT_LAST = 0.005  # the same when the excess has lasted for seconds
TICK = 1.0  # seconds between looks at a pool that only has containers
RAMP = 0.05  # seconds between looks at a pool whose backlog exceeds its containers

NEARLY = 0.9  # timers may be a little early

FIRST_RETRY, LAST_RETRY = 0.1, 60.0  # seconds between starts of a pool whose containers fail
FAILURES_TO_GIVE_UP = 3  # in a row, for pools that are not deployed


class Phase(StrEnum):
    """What a container is doing, as the leader knows it."""

    PLACED = "placed"  # asked for, not reported yet
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"


READY = frozenset({Phase.IDLE, Phase.BUSY})
COMING = frozenset({Phase.PLACED, Phase.STARTING})


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container of a pool; `since` is the leader's own clock when it entered its phase.

    `generation` and `superseded` are what its pool was when it was placed. `took` are the seconds from the
    order to a ready container; 0 where that is not known.
    """

    container: str
    phase: Phase
    since: float
    generation: int = 0
    superseded: bool = False
    took: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """A pool at one moment: messages not finished, messages finished so far, containers ready.

    Where a container runs several at once, so many count as one: `backlog` is what containers are asked for.
    """

    at: float
    backlog: int
    completed: int
    ready: int

    @property
    def excess(self) -> bool:
        """Whether more waits than the ready containers hold."""
        return self.backlog > self.ready


class Gain(StrEnum):
    """Whether more containers make a pool faster."""

    UNKNOWN = "unknown"
    PARALLEL = "parallel"
    FLAT = "flat"


@dataclass(frozen=True, slots=True)
class Pace:
    """Messages per second that a number of ready containers got through."""

    ready: int
    rate: float


@dataclass(frozen=True, slots=True)
class Stretch:
    """The looks of the last 0.2 s of one uninterrupted excess, and what was learnt before them.

    `began` is when the excess began; `lively` says that messages were being finished just then. `before`
    is the pace with fewer containers, while it is not judged yet whether more of them help.
    """

    began: float = 0.0
    looks: tuple[Look, ...] = ()
    lively: bool = False
    before: Pace | None = None
    gain: Gain = Gain.UNKNOWN
    judged: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Failures:
    """Starts that failed in a row. Containers placed before the last failure belong to its round."""

    count: int = 0
    last: float = 0.0
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision about one pool rests on. `is_full`: the workers did not take what was wanted."""

    limits: Autoscaling
    containers: tuple[ContainerView, ...]
    look: Look
    stretch: Stretch
    failures: Failures
    now: float
    single_use: bool = False
    is_full: bool = False

    def count(self, phases: frozenset[Phase]) -> int:
        """Return how many containers are in one of these phases."""
        return sum(view.phase in phases for view in self.containers)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: containers wanted in all, how many to start now, which to stop, when to look again."""

    desired: int
    start: int
    stop: tuple[str, ...]
    again_in: float | None


def follow(stretch: Stretch, look: Look) -> Stretch:
    """Return the stretch after one more look."""
    last = stretch.looks[-1] if stretch.looks else None
    if look.at - stretch.judged > JUDGED:
        stretch = replace(stretch, gain=Gain.UNKNOWN)
    if not look.excess:
        return replace(stretch, looks=(look,), before=None)
    if last is None or not last.excess or look.completed < last.completed:
        lively = last is not None and look.completed > last.completed and look.at - last.at <= TICK
        return replace(stretch, began=look.at, looks=(look,), lively=lively, before=None)
    recent = tuple(past for past in stretch.looks if look.at - past.at <= RECENT) or (last,)
    grown = replace(stretch, looks=(*recent, look))
    if look.ready != last.ready:
        return replace(grown, before=_compared(_pace(stretch), stretch.before, look.ready))
    return _judged(grown)


def _pace(stretch: Stretch) -> Pace | None:
    """Return the pace of the containers that are ready now, if the looks with just these show one."""
    ready = stretch.looks[-1].ready
    same = list(takewhile(lambda look: look.ready == ready, reversed(stretch.looks)))
    span, done = same[0].at - same[-1].at, same[0].completed - same[-1].completed
    if not ready or span < NEARLY * MEASURE or done < EVIDENCE - 1:
        return None
    return Pace(ready, done / span)


def _compared(newest: Pace | None, before: Pace | None, ready: int) -> Pace | None:
    """Return the pace that one with so many ready is compared with: the newest that is telling."""
    return newest if newest and (before is None or ready >= TELLING * newest.ready) else before


def _judged(stretch: Stretch) -> Stretch:
    """Return a stretch with the judgement that it allows: compare with fewer containers before."""
    before, now = stretch.before, _pace(stretch)
    if before is None or now is None or now.ready < TELLING * before.ready:
        return stretch
    promised, gained = now.ready / before.ready - 1, now.rate / before.rate - 1
    gain = Gain.PARALLEL if gained > WORTH_IT * promised else Gain.FLAT
    return replace(stretch, before=None, gain=gain, judged=stretch.looks[-1].at)


def decide(situation: Situation) -> Decision:
    """Return what a pool needs now."""
    limits = situation.limits
    need = _needed(situation)
    live = situation.count(READY | COMING)
    desired = _desired(situation, need)
    start = allowed(situation, max(0, desired - live))
    stop = () if start else _to_stop(situation, live, desired)
    capped = limits.max_containers is not None and desired >= limits.max_containers
    return Decision(desired, start, stop, _again_in(situation, capped=capped))


def _needed(situation: Situation) -> int:
    """Return how many containers the backlog asks for."""
    look, stretch = situation.look, situation.stretch
    if not look.excess or look.ready == 0 or situation.single_use:
        return look.backlog
    span, busy_seconds, done = _measured(stretch)
    if span < NEARLY * MEASURE:
        may_be_quick = stretch.lively or stretch.gain is Gain.FLAT or _may_free_up(situation)
        return look.ready if may_be_quick else look.backlog
    if done == 0:
        return look.backlog if span >= NEARLY * SLOW else look.ready
    unjudged = stretch.before is not None and look.ready >= TELLING * stretch.before.ready
    if stretch.gain is Gain.FLAT or unjudged or (done < EVIDENCE and span < NEARLY * SLOW):
        return look.ready
    lasted = situation.now - stretch.began
    within: float = max(DRAIN_AT_LAST, DRAIN_WITHIN * 0.5 ** min(lasted, 10.0), _start_seconds(situation))
    by_pace = math.ceil(look.backlog * busy_seconds / (done * within))
    most = look.ready * (LEAP if stretch.gain is Gain.PARALLEL else STEP)
    return max(look.ready, min(by_pace, look.backlog, most))


def _measured(stretch: Stretch) -> tuple[float, float, int]:
    """Return seconds looked at with a container ready, container-seconds in them, messages finished."""
    span, busy_seconds, done = 0.0, 0.0, 0
    for before, after in pairwise(stretch.looks):
        if ready := min(before.ready, after.ready):
            span += after.at - before.at
            busy_seconds += (after.at - before.at) * ready
            done += after.completed - before.completed
    return span, busy_seconds, done


def _may_free_up(situation: Situation) -> bool:
    """Return whether a pace is worth a short wait: a container idles, or is busy since the excess began."""
    recent = min(situation.now - MEASURE, situation.stretch.began)
    return any(
        view.phase is Phase.IDLE or (view.phase is Phase.BUSY and view.since > recent)
        for view in situation.containers
    )


def _start_seconds(situation: Situation) -> float:
    """Return how long containers of the pool took to start lately: nothing drains sooner by more of them."""
    took = sorted(view.took for view in situation.containers if view.phase in READY and view.took)
    return took[len(took) // 2] if took else 0.0


def _desired(situation: Situation, need: int) -> int:
    limits = situation.limits
    active = situation.look.backlog > 0 or situation.count(frozenset({Phase.BUSY})) > 0
    desired = max(need + (limits.buffer_containers if active else 0), limits.min_containers)
    return desired if limits.max_containers is None else min(desired, limits.max_containers)


def allowed(situation: Situation, wanted: int) -> int:
    """Return how many may start: after failures only one at a time, and not before its time."""
    if situation.failures.count == 0 or wanted == 0:
        return wanted
    if situation.now < situation.failures.retry_at:
        return 0
    return min(wanted, max(0, 1 - situation.count(COMING)))


def _to_stop(situation: Situation, live: int, desired: int) -> tuple[str, ...]:
    """Return the containers that idled through the window, longest first, and any above the maximum."""
    limits = situation.limits
    idle = sorted(
        (view for view in situation.containers if view.phase is Phase.IDLE), key=lambda view: view.since
    )
    expired = sum(situation.now - view.since >= limits.scaledown_window for view in idle)
    above = 0 if limits.max_containers is None else max(0, live - limits.max_containers)
    spare = max(0, live - desired)
    return tuple(view.container for view in idle[: max(above, min(expired, spare))])


def _ramp(situation: Situation) -> float:
    """Return the seconds to the next look at an excess: the longer it lasts, the less often."""
    lasted = situation.now - situation.stretch.began
    return MEASURE if lasted < RECENT else RAMP if lasted < TICK else 5 * RAMP


def _again_in(situation: Situation, *, capped: bool) -> float | None:
    """Return the seconds until the pool is worth another look without any news of it."""
    if not situation.containers and not situation.look.backlog and not situation.limits.min_containers:
        return None
    waits = [TICK]
    blocked = situation.failures.retry_at - situation.now
    if situation.look.excess and blocked > 0:
        waits.append(blocked)
    elif situation.look.excess and not capped:
        waits.append(_ramp(situation))
    window = situation.limits.scaledown_window
    waits += [
        max(0.0, view.since + window - situation.now) or TICK
        for view in situation.containers
        if view.phase is Phase.IDLE
    ]
    return min(waits)


def after_failure(failures: Failures, *, placed: float, now: float) -> Failures:
    """Return the failures after one more container failed to start; `placed` is when it was asked for."""
    if failures.count and placed < failures.last:
        return failures
    count = failures.count + 1
    return Failures(count, now, now + min(LAST_RETRY, FIRST_RETRY * 2 ** min(count - 1, 20)))


def gives_up(failures: Failures, *, deployed: bool, ready: int, hopeless: bool) -> bool:
    """Return whether the waiting inputs are to be failed; never while a container of the pool works."""
    return not deployed and ready == 0 and (hopeless or failures.count >= FAILURES_TO_GIVE_UP)
