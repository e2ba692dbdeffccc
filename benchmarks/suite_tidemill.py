"""The workload through the SDK on a local stack, cold starts, and the caller's memory."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from functions import app, cold_pool, identity, nap
from measure import RUNS, Report
from stacks import TIDEMILL
from workload import Peer, measure

HELLO = Path(__file__).parent.parent / "examples" / "hello.py"


def fan(values: Iterable[Any]) -> list[Any]:
    return list(identity.map(values))


def sleep16(seconds: list[float]) -> None:
    for _ in nap.map(seconds):
        pass


def first_call(report: Report) -> None:
    """Measure the first call of pools that have no container, the stack being up."""
    for number in range(RUNS * 3):
        fresh, function = cold_pool(number)
        with fresh.run():
            begun = time.perf_counter()
            assert function.remote(number) == number
            report.add("first_call", (time.perf_counter() - begun) * 1e3, "ms")


def run_from_nothing(report: Report) -> None:
    """Measure `tidemill run examples/hello.py` with nothing running: stack, run, stop."""
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run(
            [TIDEMILL, "run", HELLO], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        report.add("run_from_nothing", time.perf_counter() - begun, "s")


def resident() -> float:
    """Return this process's largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_of_the_caller(report: Report) -> None:
    """Compare the caller's memory after a map over 10,000 and over 1,000,000 inputs."""
    for _ in identity.map(range(10_000)):
        pass
    short = resident()
    begun = time.perf_counter()
    for _ in identity.map(range(1_000_000)):
        pass
    report.add("long_map", 1_000_000 / (time.perf_counter() - begun), "inputs/s")
    report.add("long_map_memory_growth", resident() - short, "MB")


def main() -> None:
    report = Report("tidemill")
    if "--no-run" not in sys.argv:
        run_from_nothing(report)
    with app.run():
        sleep16([0.0] * 200)
        memory_of_the_caller(report)
        peer = Peer("tidemill", call=identity.remote, fan=fan, sleep16=sleep16)
        measure(report, peer)
        first_call(report)
    report.note("local stack, process tier; two containers for the calls, 16 for the sleeps")
    report.write()


if __name__ == "__main__":
    main()
