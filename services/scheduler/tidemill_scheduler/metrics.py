"""What the scheduler counts."""

from prometheus_client import Counter, Gauge, Histogram

from tidemill_common import metrics


class Metrics:
    """The scheduler's own metrics."""

    def __init__(self, registry: metrics.Registry) -> None:
        self.leading = Gauge(
            "tidemill_scheduler_leading", "1 while this replica is the leader.", registry=registry
        )
        self.placements = Counter(
            "tidemill_scheduler_placements",
            "Answers of workers to placements.",
            ["outcome"],
            registry=registry,
        )
        self.placing = Histogram(
            "tidemill_scheduler_demand_to_place_seconds",
            "From a bell of demand to the order to a worker that it led to.",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0),
            registry=registry,
        )
        self.stops = Counter(
            "tidemill_scheduler_stops", "Containers told to stop.", ["why"], registry=registry
        )
        self.repairs = Counter(
            "tidemill_scheduler_repairs",
            "What was found wrong and put right.",
            ["kind"],
            registry=registry,
        )
        self.due = Counter(
            "tidemill_scheduler_due",
            "Delayed attempts and schedules whose time had come.",
            ["outcome"],
            registry=registry,
        )
        self.ended = Counter(
            "tidemill_scheduler_ended_inputs",
            "Inputs ended here because their pool cannot run them.",
            ["status"],
            registry=registry,
        )
