"""How many containers a pool has: settings that hold until the next deployment, and what it does now."""

from tidemill._dataclass import dataclass


@dataclass(frozen=True, slots=True)
class GetAutoscaler:
    """`tm.registry.<ws>.get_autoscaler`: the settings of a pool, answered with `specs.Autoscaling`."""

    pool: str


@dataclass(frozen=True, slots=True)
class UpdateAutoscaler:
    """`tm.registry.<ws>.update_autoscaler`: others for a pool; what is None stays as it is.

    They hold until the app is deployed again. Answered with `specs.Autoscaling`.
    """

    pool: str
    min_containers: int | None = None
    max_containers: int | None = None
    buffer_containers: int | None = None
    scaledown_window: float | None = None


@dataclass(frozen=True, slots=True)
class GetPoolStats:
    """`tm.scheduler.<ws>.pool_stats`: what a pool does now."""

    pool: str


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at one moment.

    `waiting` and `running` count messages, each of which may hold several inputs of one map; `containers`
    are those that run or start, `idle` those of them that have nothing to do.
    """

    waiting: int
    running: int
    containers: int
    idle: int
