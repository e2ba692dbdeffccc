"""How containers that are out of date make way: values in, a decision out.

A container is out of date when it was placed under an earlier generation of its pool, or before its pool
was superseded by another version's. What becomes of it is the deployment's strategy:

                    superseded pool                         new generation of the same pool
    rolling         goes once it is idle, after the new     goes, idle or busy, as soon as a new one is
                    version has as many as its minimum      ready in its place; finishes what it holds
    recreate        stopped at once; what it ran runs       stopped at once; new ones start when
                    again in its own version                all have gone

A superseded pool still starts containers for whoever calls it. Those are not out of date: they stay for
the usual window, and no minimum holds them.
"""

from dataclasses import dataclass, replace

from tidemill._wire.specs import Autoscaling, Pool
from tidemill_scheduler.decisions import (
    COMING,
    READY,
    ContainerView,
    Decision,
    Phase,
    Situation,
    allowed,
)

SURGE = 0.25  # of the containers wanted may be there in addition while a generation is replaced


@dataclass(frozen=True, slots=True)
class Rollout:
    """What a pool's record says about its containers; `held` while its successor is not ready yet."""

    generation: int = 0
    superseded: bool = False
    recreate: bool = False
    held: bool = False

    @classmethod
    def of(cls, pool: Pool, *, held: bool) -> "Rollout":
        """Return what a pool's record says."""
        return cls(pool.generation, pool.superseded, pool.strategy == "recreate", held)


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, and the containers that make way: those that `drain` finish what they hold first."""

    decision: Decision
    drain: tuple[str, ...] = ()
    kill: tuple[str, ...] = ()


def limits(pool: Pool) -> Autoscaling:
    """Return how many containers a pool may have.

    None are kept waiting for an earlier version, nor for a class without the parameters that it needs.
    """
    spec = pool.spec
    if not pool.superseded and not (spec.cls is not None and spec.cls.lacks(spec.parameters)):
        return spec.autoscaling
    return replace(spec.autoscaling, min_containers=0, buffer_containers=0)


def is_outdated(view: ContainerView, rollout: Rollout) -> bool:
    """Return whether a container is to make way."""
    return view.generation < rollout.generation or (rollout.superseded and not view.superseded)


def plan(situation: Situation, decision: Decision, rollout: Rollout) -> Plan:
    """Return what is done about a pool, given what would be done if all its containers were up to date."""
    old = [view for view in situation.containers if is_outdated(view, rollout)]
    if not old:
        return Plan(decision)
    live = [view for view in old if view.phase is not Phase.STOPPING]
    if rollout.recreate:
        return Plan(replace(decision, start=0, stop=()), kill=tuple(view.container for view in live))
    if not rollout.superseded:
        return _replace_generation(situation, decision, live)
    if rollout.held:
        return Plan(replace(decision, stop=()))
    return Plan(replace(decision, stop=()), drain=tuple(view.container for view in _idle(live)))


def _replace_generation(situation: Situation, decision: Decision, old: list[ContainerView]) -> Plan:
    """Start new containers a few at a time, and let one go for each that is ready."""
    live = situation.count(READY | COMING)
    ready, coming = situation.count(READY), situation.count(COMING)
    desired = max(decision.desired, sum(view.phase is Phase.BUSY for view in old))
    surge = max(1, int(desired * SURGE)) if desired else 0
    if (most := situation.limits.max_containers) is not None:
        surge = min(surge, max(0, most - desired))
    may_go = ready - desired
    if may_go <= 0 and not coming and (not surge or situation.is_full):
        may_go = 1  # there is no room for both: the old one goes first
    leaving = (_idle(old) + [view for view in old if view.phase is not Phase.IDLE])[: max(0, may_go)]
    missing = desired - (live - len(old))
    start = max(decision.start, allowed(situation, max(0, min(missing, desired + surge - live))))
    return Plan(replace(decision, start=start, stop=()), drain=tuple(view.container for view in leaving))


def _idle(views: list[ContainerView]) -> list[ContainerView]:
    """Return those that are idle, longest first."""
    return sorted((view for view in views if view.phase is Phase.IDLE), key=lambda view: view.since)
