"""Loads that jump and loads that are noisy, on a stack: how long calls wait, how many start."""

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import load_functions as functions
import psutil
from measure import Report, percentile
from stacks import ready, stack

RATE = float(os.environ.get("BENCH_RATE", "500"))  # calls per second after the jump
JUMP, NOISE = 10.0, 20.0  # seconds of each load
LATE = 0.1  # seconds of waiting that show a backlog
STEADY = 3.0  # seconds after a jump from which no backlog is to be left
NOISY_RATE = 20.0

PARTS = ("nats", "scheduler", "worker")


async def calls(function: functions.Nap, seconds: float, gaps: Iterator[float]) -> list[tuple[float, float]]:
    """Call at moments that do not depend on the answers; return when each was made and how long it waited."""
    begun = time.perf_counter()
    made: list[asyncio.Task[tuple[float, float]]] = []

    async def one(at: float) -> tuple[float, float]:
        await function.remote.aio(seconds)
        return at, time.perf_counter() - begun - at - seconds

    at = 0.0
    for gap in gaps:
        made.append(asyncio.create_task(one(at)))
        at += gap
        if (pause := begun + at - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
    return await asyncio.gather(*made)


def steps(rate: float, seconds: float) -> Iterator[float]:
    """Yield the times between calls that come evenly."""
    return iter([1 / rate] * int(rate * seconds))


def chances(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yield the times between calls that come by chance, at the same moments in every run."""
    dice = random.Random(seed)
    return iter([dice.expovariate(rate) for _ in range(int(rate * seconds))])


def processor_seconds(home: Path) -> dict[str, float]:
    """Return what each part of the stack has used so far."""
    parts = {one["name"]: one["pid"] for one in json.loads((home / "stack.json").read_text())["parts"]}
    used = {}
    for name in PARTS:
        times = psutil.Process(parts[name]).cpu_times()
        used[name] = times.user + times.system
    return used


def jump(report: Report, home: Path, run: int) -> None:
    """Let calls of 20 ms begin to come at full rate, where no container is."""
    function, before, there = functions.naps[run], processor_seconds(home), len(ready(home))
    waits = asyncio.run(calls(function, 0.02, steps(RATE, JUMP)))
    late = [at + wait for at, wait in waits if wait > LATE]
    report.add("jump_cleared", max(late, default=0.0), "s")
    report.latency("jump_wait", [wait for _, wait in waits])
    report.latency("steady_wait", [wait for at, wait in waits if at > STEADY])
    report.add("jump_containers", len(ready(home)) - there, "containers")
    for part, seconds in processor_seconds(home).items():
        report.add(f"jump_{part}", (seconds - before[part]) / JUMP * 100, "% of a core")


def noise(report: Report, home: Path, run: int) -> None:
    """Let calls of 100 ms come by chance, to containers that end after two idle seconds."""
    there = len(ready(home))
    waits = asyncio.run(calls(functions.noisy, 0.1, chances(NOISY_RATE, NOISE, run)))
    report.add("noise_wait_p50", percentile([wait for _, wait in waits], 0.5) * 1e3, "ms")
    report.add("noise_containers", (len(ready(home)) - there) / NOISE * 60, "containers/min")


def main() -> None:
    """Run each load several times."""
    report = Report("load")
    with stack() as home, functions.app.run():
        functions.warm.remote()
        for run in range(len(functions.naps)):
            jump(report, home, run)
        for run in range(len(functions.naps)):
            noise(report, home, run)
    report.write()


if __name__ == "__main__":
    main()
