"""What the worker counts."""

from prometheus_client import Counter, Gauge, Histogram

from tidemill_common import metrics

_START_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """The worker's own metrics."""

    def __init__(self, registry: metrics.Registry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tidemill_worker_{name}", text, labels, registry=registry)

        self.outputs = counter("outputs", "Terminal outputs, by status.", "status")
        self.repeats = counter("repeats", "Deliveries of inputs that were finished or running here.")
        self.rejected = counter("rejected_results", "Results that another run had stored before.")
        self.attempts = counter("attempts", "Inputs that were published again, by cause.", "cause")
        self.buried = counter("dead_letters", "Inputs that were given up.")
        self.splits = counter("splits", "Chunks taken back in part for an idle container.")
        self.placements = counter("placements", "Orders to start a container, by outcome.", "outcome")
        self.ends = counter("container_ends", "Containers that ended, by reason.", "reason")
        self.orphans = counter("orphans", "Processes ended because their init was gone.")
        self.dropped = counter("log_lines_dropped", "Lines of output that the broker could not take in time.")
        self.gpus_set_aside = counter(
            "gpus_set_aside", "GPUs that were not free again after their container."
        )
        self.gpus = Gauge(
            "tidemill_worker_gpus",
            "GPUs that no container has, by state, and those taken.",
            ["state"],
            registry=registry,
        )
        self.containers = Gauge("tidemill_worker_containers", "Containers here.", registry=registry)
        self.held = Gauge("tidemill_worker_held_chunks", "Chunks leased from the broker.", registry=registry)
        self.starts = Histogram(
            "tidemill_worker_start_seconds",
            "Time that a container's start took, by phase.",
            ["phase"],
            buckets=_START_SECONDS,
            registry=registry,
        )
