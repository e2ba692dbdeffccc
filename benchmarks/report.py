"""Write `docs/performance.md` and its plot from `benchmarks/results/*.json`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
RESULTS = {path.stem: json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))}

# row: label, unit, higher is better, target, {column: (suite, metric)}
ROWS: list[tuple[str, str, bool, str, dict[str, tuple[str, str]]]] = [
    (
        "one call, p50",
        "ms",
        False,
        "0.85",
        {
            "Tidemill": ("tidemill", "call_p50"),
            "NATS floor": ("floor", "call_p50"),
            "Celery": ("celery", "call_p50"),
            "Ray task": ("ray", "call_p50"),
            "Ray actor": ("ray", "actor_call_p50"),
        },
    ),
    (
        "one call, p99",
        "ms",
        False,
        "2",
        {
            "Tidemill": ("tidemill", "call_p99"),
            "NATS floor": ("floor", "call_p99"),
            "Celery": ("celery", "call_p99"),
            "Ray task": ("ray", "call_p99"),
            "Ray actor": ("ray", "actor_call_p99"),
        },
    ),
    (
        "many trivial inputs, ordered",
        "inputs/s",
        True,
        "50,000",
        {
            "Tidemill": ("tidemill", "fan_out"),
            "NATS floor": ("floor", "batched_fan_out"),
            "Celery": ("celery", "fan_out"),
            "Ray task": ("ray", "fan_out"),
            "Ray actor": ("ray", "actor_fan_out"),
        },
    ),
    (
        "200 sleeps of 10 ms, 16 slots",
        "ms",
        False,
        "160",
        {
            "Tidemill": ("tidemill", "sleeps_16"),
            "NATS floor": ("floor", "sleeps_16"),
            "Celery": ("celery", "sleeps_16"),
            "Ray actor": ("ray", "actor_sleeps_16"),
        },
    ),
    (
        "1 MB each way, 120 in flight",
        "MB/s",
        True,
        "150",
        {
            "Tidemill": ("tidemill", "large_in_flight"),
            "NATS floor": ("floor", "large_in_flight"),
            "Celery": ("celery", "large_in_flight"),
            "Ray task": ("ray", "large_in_flight"),
            "Ray actor": ("ray", "actor_large_in_flight"),
        },
    ),
    (
        "first call, nothing warm",
        "ms",
        False,
        "250",
        {
            "Tidemill": ("tidemill", "first_call"),
            "Celery": ("celery", "first_call"),
            "Ray actor": ("ray", "actor_first_call"),
        },
    ),
]
PAGE = """# Performance

All figures come from one run of `scripts/bench` on one machine ({processors} processors, Python {python}):
medians with (min-max) of the runs. Caller, broker, services and containers share the processors. Run it on
yours: figures of two machines, or of one machine on two days, do not compare. This page is written by
`benchmarks/report.py`.

![Tidemill beside the NATS floor, Celery and Ray](performance.svg)

{table}

The *NATS floor* is the same work written directly on nats-py, without scheduler, database, logs, retries or
isolation: what this design cannot beat, except where it sends several inputs in one message.

## Tidemill alone

{own_table}

## Deployments

`tidemill deploy` of ten functions whose code is new, without the start of Python; look-up and first call from
a new process, without a warm call's time; the same beside 10,000 deployed functions
(`benchmarks/suite_deploy.py`).

{deploy_table}

## Web functions

A FastAPI app in one container behind the gateway, and the same app directly on uvicorn, which is what this
design cannot beat: gateway, NATS, worker and container share the processors with the client
(`benchmarks/suite_web.py`).

{web_table}

Requests that a limit refuses, as fast as they come and at a pace beside others, and the first ones of
functions without containers (`benchmarks/suite_edge.py`).

{edge_table}

## Containers

First calls of functions that have no container, whose image's template is warm, and of such as need an
interpreter of their own; calls that import numpy, each in a container of its own; 50 containers of one
function from none; private memory of a container that waits, one of 200 of different apps;
with each runtime of [Isolation](isolation.md) (`benchmarks/suite_containers.py`).

{containers_table}

## Loads that change

500 calls a second of 20 ms that begin at once, for 10 s, where no container is: when the last call that had
waited for more than 0.1 s was answered. Then 20 calls a second of 100 ms that come by chance, to containers
that end after two idle seconds: how many are started (`benchmarks/suite_load.py`).

{load_table}

## Images

Five pure Python packages: with nothing in the worker's cache, and with the packages there and their versions
known, as when an image made room for others (`benchmarks/suite_images.py`).

{images_table}

## Each stage of a call

What one call consists of, each measured on its own (`benchmarks/suite_stages.py`).

{stages_table}

## Conditions

{conditions}
"""
COLUMNS = ("Tidemill", "NATS floor", "Celery", "Ray task", "Ray actor")
# label, metric, unit, target
OWN = (
    ("`tidemill run examples/hello.py`, nothing running", "run_from_nothing", "s", "4"),
    ("caller's memory, 1,000,000 inputs over 10,000", "long_map_memory_growth", "MB", "50"),
    ("map over 1,000,000 inputs", "long_map", "inputs/s", "-"),
    ("1 MB each way, one by one", "large_one_by_one", "MB/s", "-"),
)
DEPLOY = (
    ("deploy of 10 functions", "deploy_ten", "ms", "300"),
    ("the same beside 10,000", "deploy_ten_beside_many", "ms", "twice that"),
    ("deploy that changes nothing", "deploy_unchanged", "ms", "-"),
    ("look-up by name and first call", "look_up_and_first_call", "ms", "100"),
    ("warm call, p50", "warm_call_p50", "ms", "-"),
    ("the same beside 10,000", "warm_call_beside_many_p50", "ms", "the same"),
    ("listing of 1,000 apps", "list_1000_apps", "ms", "50"),
    ("gateway's memory for 10,000 functions", "gateway_memory_growth", "MB", "100"),
    ("scheduler's memory for 10,000 functions", "scheduler_memory_growth", "MB", "100"),
    ("worker's memory for 10,000 functions", "worker_memory_growth", "MB", "100"),
)
# label, metric, unit, target
WEB = (
    ("hello, 64 connections", "hello_64", "requests/s", "4,000"),
    ("the same, processor time of each", "hello_64_processor_time", "us", "-"),
    ("hello, one connection, p50", "hello_1_p50", "ms", "1.2"),
    ("100 server-sent events, first byte, p50", "events_first_p50", "ms", "2"),
    ("100 server-sent events, whole, p50", "events_whole_p50", "ms", "6"),
    ("1 GiB down", "download", "MB/s", "150"),
    ("1 GiB up", "upload", "MB/s", "150"),
    ("memory that these take, all processes", "bodies_memory_growth", "MB", "64 each"),
    ("4 GiB up, once", "upload_largest", "MB/s", "-"),
    ("WebSocket, there and back, p50", "socket_round_trip_p50", "ms", "1.5"),
    ("1,000 open WebSockets, all processes", "open_sockets_memory", "MB", "300"),
)
IMAGES = (
    ("an image, cold", "image_cold", "s", "10"),
    ("the same, warm", "image_warm", "s", "0.3"),
)
EDGE = (
    ("requests refused above a limit", "refusals", "requests/s", "5,000"),
    ("refused at a pace, while others are admitted", "paced_refusals", "requests/s", "-"),
    ("hello, one connection, p50, alone", "admitted_alone_p50", "ms", "-"),
    ("the same beside those refused", "admitted_beside_refusals_p50", "ms", "1.2 times that"),
    ("first request at zero containers", "first_request", "ms", "first call + 20"),
    ("first call at zero containers", "first_call", "ms", "-"),
)
CONTAINERS = tuple(
    (f"{label}, `{runtime}`", f"{runtime}_{metric}", unit, target)
    for label, metric, unit, target in (
        ("start of a container", "start", "ms", "-"),
        ("first call at zero containers", "first_call", "ms", "30"),
        ("the same without a template", "first_call_plain", "ms", "200"),
        ("call in a new container that imports numpy", "importing", "ms", "-"),
        ("the same with a memory snapshot", "snapshot", "ms", "40"),
        ("50 containers from none", "burst", "s", "1.5"),
        ("private memory of a waiting container", "private", "MB", "5"),
    )
    for runtime in ("process", "bubblewrap")
)


LOAD = (
    ("backlog after the jump cleared", "jump_cleared", "s", "3"),
    ("waiting from 3 s on, p50", "steady_wait_p50", "ms", "-"),
    ("the same, p99", "steady_wait_p99", "ms", "-"),
    ("containers that the jump started", "jump_containers", "", "-"),
    ("processor of the worker", "jump_worker", "% of a core", "-"),
    ("processor of the scheduler", "jump_scheduler", "% of a core", "-"),
    ("waiting by chance, p50", "noise_wait_p50", "ms", "-"),
    ("containers started by chance", "noise_containers", "in a minute", "-"),
)


def value(suite: str, metric: str) -> dict[str, Any] | None:
    return RESULTS.get(suite, {}).get("metrics", {}).get(metric)


def number(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def cell(source: tuple[str, str] | None) -> str:
    found = value(*source) if source else None
    return f"{number(found['median'])} ({number(found['min'])}-{number(found['max'])})" if found else "-"


def table() -> list[str]:
    lines = [f"| | target | {' | '.join(COLUMNS)} |", f"|---|---|{'---|' * len(COLUMNS)}"]
    for label, unit, higher, target, sources in ROWS:
        sign = "≥" if higher else "≤"
        cells = " | ".join(cell(sources.get(column)) for column in COLUMNS)
        lines.append(f"| {label}, {unit} | {sign} {target} | {cells} |")
    return lines


def own_table(suite: str, rows: Iterable[tuple[str, str, str, str]]) -> list[str]:
    lines = ["| | target | Tidemill |", "|---|---|---|"]
    lines += [
        f"| {f'{label}, {unit}' if unit else label} | {target} | {cell((suite, metric))} |"
        for label, metric, unit, target in rows
    ]
    return lines


def web_table() -> list[str]:
    lines = ["| | target | Tidemill | uvicorn |", "|---|---|---|---|"]
    for label, metric, unit, target in WEB:
        cells = f"{cell(('web', metric))} | {cell(('web', f'uvicorn_{metric}'))}"
        lines.append(f"| {label}, {unit} | {target} | {cells} |")
    return lines


def stages_table() -> list[str]:
    metrics = RESULTS.get("stages", {}).get("metrics", {})
    rows = [(name, found) for name, found in metrics.items() if name not in ("ambient", "calibration")]
    lines = ["| stage | median (min-max) |", "|---|---|"]
    for name, found in rows:
        low, middle, high = number(found["min"]), number(found["median"]), number(found["max"])
        lines.append(f"| {name.replace('_', ' ')} | {middle} ({low}-{high}) {found['unit']} |")
    return lines


def conditions() -> list[str]:
    lines = ["| suite | fixed loop, ms | other load, % | versions | notes |", "|---|---|---|---|---|"]
    for suite, result in RESULTS.items():
        versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        loop, ambient = (result["metrics"][name]["median"] for name in ("calibration", "ambient"))
        lines.append(f"| {suite} | {loop:.0f} | {ambient:.1f} | {versions} | {'; '.join(result['notes'])} |")
    return lines


def plot() -> None:
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), constrained_layout=True)
    for axis, (label, unit, higher, _target, sources) in zip(axes.flat, ROWS, strict=True):
        bars = [(name, found["median"]) for name, source in sources.items() if (found := value(*source))]
        names, heights = [name for name, _ in bars], [height for _, height in bars]
        drawn = axis.barh(
            names, heights, color=["#1f77b4" if name == "Tidemill" else "#c7c7c7" for name in names]
        )
        axis.bar_label(drawn, labels=[number(height) for height in heights], padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.18)
        axis.set_title(f"{label} ({unit}, {'more' if higher else 'less'} is better)", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    mpl.rcParams["svg.hashsalt"] = "tidemill"
    figure.savefig(DOCS / "performance.svg", metadata={"Date": None})


def main() -> None:
    plot()
    any_result = next(iter(RESULTS.values()))
    text = PAGE.format(
        processors=any_result["processors"],
        python=any_result["python"],
        table="\n".join(table()),
        own_table="\n".join(own_table("tidemill", OWN)),
        deploy_table="\n".join(own_table("deploy", DEPLOY)),
        web_table="\n".join(web_table()),
        edge_table="\n".join(own_table("edge", EDGE)),
        containers_table="\n".join(own_table("containers", CONTAINERS)),
        load_table="\n".join(own_table("load", LOAD)),
        images_table="\n".join(own_table("images", IMAGES)),
        stages_table="\n".join(stages_table()),
        conditions="\n".join(conditions()),
    )
    (DOCS / "performance.md").write_text(text)


if __name__ == "__main__":
    main()
