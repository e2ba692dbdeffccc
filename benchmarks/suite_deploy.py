"""Deployments on a local stack: how long they take, alone and beside 10,000 deployed functions."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from measure import RUNS, Report, percentile
from stacks import TIDEMILL, load, stack

MANY, PER_APP = 10_000, 100  # functions
APPS = 1_000  # in a listing
CALLS = 300

PROGRAM = """import tidemill

app = tidemill.App({name!r})
{functions}
"""
FUNCTION = """

@app.function()
def f{number}(x):
    return x + {constant}
"""
CLIENT = """
import sys, time
import tidemill
begun = time.perf_counter()
function = tidemill.Function.from_name(sys.argv[1], "f0")
function.remote(1)
first = time.perf_counter() - begun
warm = []
for _ in range(50):
    begun = time.perf_counter()
    function.remote(1)
    warm.append(time.perf_counter() - begun)
print((first - sorted(warm)[25]) * 1e3)
"""


def write(folder: Path, name: str, functions: int, constant: int) -> Path:
    """Write the program of an app with so many functions."""
    bodies = "".join(FUNCTION.format(number=number, constant=constant) for number in range(functions))
    file = folder / f"{name.replace('-', '_')}.py"
    file.write_text(PROGRAM.format(name=name, functions=bodies))
    return file


def seconds(*command: str) -> float:
    """Return how long a command takes."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def python_starts() -> float:
    """Return how long Python takes to start and end, in seconds."""
    return percentile([seconds(sys.executable, "-c", "pass") for _ in range(5)], 0.5)


def deploy(report: Report, folder: Path, metric: str) -> None:
    """Measure `tidemill deploy` of ten functions whose code is new each time, without Python's start."""
    start = python_starts()
    for number in range(RUNS + 2):
        file = write(folder, "ten", 10, constant=time.time_ns())
        took = seconds(TIDEMILL, "deploy", str(file)) - start
        if number >= 2:  # the first ones make the image and warm the database
            report.add(metric, took * 1e3, "ms")


def unchanged(report: Report, folder: Path) -> None:
    """Measure a deployment that finds nothing to do."""
    start = python_starts()
    for _ in range(RUNS):
        took = seconds(TIDEMILL, "deploy", str(folder / "ten.py")) - start
        report.add("deploy_unchanged", took * 1e3, "ms")


def look_up(report: Report, folder: Path) -> None:
    """Measure look-up and first call from a new process, beyond what a warm call takes there."""
    file = folder / "client.py"
    file.write_text(CLIENT)
    for number in range(RUNS + 1):
        done = subprocess.run([sys.executable, str(file), "ten"], check=True, capture_output=True, text=True)
        if number:
            report.add("look_up_and_first_call", float(done.stdout), "ms")


def resident() -> dict[str, float]:
    """Return the resident memory of each service with what it runs by itself, in MB."""
    status = json.loads(
        subprocess.run([TIDEMILL, "status", "--json"], check=True, capture_output=True, text=True).stdout
    )
    pids = {part["name"]: part["pid"] for part in status["parts"]}
    return {
        name: psutil.Process(pids[name]).memory_info().rss / 1e6
        for name in ("gateway", "scheduler", "worker")
    }


def warm_call(report: Report, metric: str) -> None:
    """Measure a warm call of a deployed function."""
    import tidemill

    function = tidemill.Function.from_name("ten", "f0")
    for _ in range(20):
        function.remote(1)
    for _ in range(RUNS):
        times = []
        for _ in range(CALLS):
            begun = time.perf_counter()
            function.remote(1)
            times.append(time.perf_counter() - begun)
        report.latency(metric, times)


def fill(folder: Path) -> None:
    """Deploy many functions, and as many apps as a listing is to show."""
    for number in range(MANY // PER_APP):
        load(write(folder, f"many-{number}", PER_APP, constant=number)).app.deploy()
    few = (MANY // PER_APP) + 1
    for number in range(APPS - few):
        load(write(folder, f"one-{number}", 1, constant=number)).app.deploy()


def listing(report: Report) -> None:
    """Measure the registry's answer with 1,000 apps, asked over NATS."""
    import asyncio

    from tidemill import _client, _loop
    from tidemill._wire.deploying import AppPage, FindApps

    client = _client.current()

    async def ask() -> None:
        for _ in range(RUNS * 3):
            begun = time.perf_counter()
            page = await client.request("registry", "find_apps", FindApps(limit=APPS), AppPage)
            report.add("list_1000_apps", (time.perf_counter() - begun) * 1e3, "ms")
            assert len(page.apps) == APPS

    asyncio.run_coroutine_threadsafe(ask(), _loop.get()).result()


def main() -> None:
    report = Report("deploy")
    with stack(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deploy(report, folder, "deploy_ten")
        unchanged(report, folder)
        look_up(report, folder)
        warm_call(report, "warm_call")
        before = resident()
        fill(folder)
        for part, memory in resident().items():
            report.add(f"{part}_memory_growth", memory - before[part], "MB")
        deploy(report, folder, "deploy_ten_beside_many")
        warm_call(report, "warm_call_beside_many")
        listing(report)
    report.note(f"{MANY:,} functions in {MANY // PER_APP} apps, {APPS:,} apps in all")
    report.write()


if __name__ == "__main__":
    main()
