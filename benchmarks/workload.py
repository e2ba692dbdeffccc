"""The same work for every peer: a peer says how it calls, submits and gathers."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from measure import CALLS, INPUTS, MEGABYTE, MEGABYTES, RUNS, SLEEPS, Report, payloads


@dataclass(frozen=True)
class Peer:
    """How a peer does the work. `fan` returns the results of many inputs in order."""

    name: str
    call: Callable[[Any], Any]
    fan: Callable[[Iterable[Any]], list[Any]]
    sleep16: Callable[[list[float]], Any] | None = None
    calls: int = CALLS
    inputs: int = INPUTS
    large: bool = True


def measure(report: Report, peer: Peer, prefix: str = "") -> None:
    """Run the whole workload `RUNS` times and record it."""
    for number in range(100):
        assert peer.call(number) == number
    peer.fan(range(1000))
    for _ in range(RUNS):
        _one_by_one(report, peer, prefix)
        _fan_out(report, peer, prefix)
        if peer.sleep16:
            _sleeps(report, peer, prefix)
        if peer.large:
            _large_payloads(report, peer, prefix)


def _one_by_one(report: Report, peer: Peer, prefix: str) -> None:
    latencies = []
    for number in range(peer.calls):
        start = time.perf_counter()
        result = peer.call(number)
        latencies.append(time.perf_counter() - start)
        assert result == number
    report.latency(f"{prefix}call", latencies)


def _fan_out(report: Report, peer: Peer, prefix: str) -> None:
    start = time.perf_counter()
    results = peer.fan(range(peer.inputs))
    seconds = time.perf_counter() - start
    assert results == list(range(peer.inputs))
    report.add(f"{prefix}fan_out", peer.inputs / seconds, "inputs/s")


def _sleeps(report: Report, peer: Peer, prefix: str) -> None:
    assert peer.sleep16
    start = time.perf_counter()
    peer.sleep16([0.01] * SLEEPS)
    report.add(f"{prefix}sleeps_16", (time.perf_counter() - start) * 1e3, "ms")


def _large_payloads(report: Report, peer: Peer, prefix: str) -> None:
    contents = payloads(MEGABYTES)
    start = time.perf_counter()
    for content in contents[: MEGABYTES // 2]:
        assert len(peer.call(content)) == MEGABYTE
    report.add(f"{prefix}large_one_by_one", MEGABYTES / 2 / (time.perf_counter() - start), "MB/s each way")
    start = time.perf_counter()
    results = peer.fan(contents)
    seconds = time.perf_counter() - start
    assert all(left == right for left, right in zip(results, contents, strict=True))
    report.add(f"{prefix}large_in_flight", MEGABYTES / seconds, "MB/s each way")
