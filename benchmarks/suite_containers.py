"""The start of containers on a local stack, as plain processes and in sandboxes: how fast, and how heavy."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
from measure import Report
from stacks import TIDEMILL, load, ready, stack

Add = Callable[[str, float, str], None]

FIRST_CALLS = 20  # of functions that have no container yet, with a warm template
PLAIN_STARTS = 5
IMPORTING = 6
REST = 3.0  # seconds until there is neither the container of the call before nor one in its place
BURST = 50  # containers from none at once
POOLS = 200  # with one container each, which waits

PROGRAM = """import tidemill

app = tidemill.App("containers")
once = {{"single_use_containers": True, "scaledown_window": 2}}

def work(x):
    return x

{functions}

@app.function(name="meet", timeout=60)
def meet(number):
    import time
    begun = time.time()
    time.sleep(3)
    return begun

numbers = tidemill.Image.debian_slim().pip_install("numpy")
with numbers.imports():
    import numpy

@app.function(name="snapped", image=numbers, enable_memory_snapshot=True, **once)
def snapped(x):
    return float(numpy.float64(x))

@app.function(name="imported", image=numbers, **once)
def imported(x):
    return float(numpy.float64(x))
"""
WAITING = """import tidemill

app = tidemill.App("waiting{number}")

@app.function(min_containers=1)
def wait(x):
    return x
"""
FUNCTION = """
@app.function(name="{name}"{more})
def {name}(x):
    return x
"""


def roomy(runtime: str) -> AbstractContextManager[Path]:
    """Return a stack whose worker takes as many containers as are asked of it."""
    return stack(TIDEMILL_RUNTIME=runtime, TIDEMILL_WORKER_CPU="1000", TIDEMILL_WORKER_MEMORY="1000000")


def write(folder: Path) -> Path:
    """Write the program."""
    named = [f"warm{number}" for number in range(FIRST_CALLS + 1)]
    functions = [FUNCTION.format(name=name, more="") for name in named]
    plain = ', env={"PYTHONUNBUFFERED": "1"}'  # what an interpreter reads at its start cannot be forked
    functions += [FUNCTION.format(name=f"plain{number}", more=plain) for number in range(PLAIN_STARTS)]
    file = folder / "containers.py"
    file.write_text(PROGRAM.format(functions="".join(functions)))
    return file


def first_calls(add: Add, program: ModuleType, runtime: str) -> None:
    """Measure the first call of functions that have no container."""
    program.warm0.remote(1)
    for metric, name, numbers in (
        ("first_call", "warm", range(1, FIRST_CALLS + 1)),
        ("first_call_plain", "plain", range(PLAIN_STARTS)),
    ):
        for number in numbers:
            function = getattr(program, f"{name}{number}")
            begun = time.perf_counter()
            function.remote(1)
            add(f"{runtime}_{metric}", (time.perf_counter() - begun) * 1e3, "ms")


def importing(add: Add, program: ModuleType, runtime: str) -> None:
    """Measure calls of functions that import numpy, each in a new container, with and without a snapshot."""
    for metric, function in (("snapshot", program.snapped), ("importing", program.imported)):
        for number in range(IMPORTING + 2):
            begun = time.perf_counter()
            function.remote(1)
            if number > 1:  # image and snapshot have been made
                add(f"{runtime}_{metric}", (time.perf_counter() - begun) * 1e3, "ms")
            time.sleep(REST)


def starts(add: Add, home: Path, runtime: str) -> None:
    """Take the worker's own word for how long containers took to be made."""
    for said in ready(home):
        add(f"{runtime}_start", said["start"] * 1e3, "ms")


def burst(add: Add, program: ModuleType, runtime: str) -> None:
    """Measure how long it takes until many containers of one function run at once."""
    begun = time.time()
    add(f"{runtime}_burst", max(program.meet.map(range(BURST))) - begun, "s")


def waiting(add: Add, folder: Path, runtime: str) -> None:
    """Measure the private memory of containers that wait, each the only one of an app of its own."""
    for number in range(POOLS):
        file = folder / f"waiting{number}.py"
        file.write_text(WAITING.format(number=number))
        load(file).app.deploy()
    begun = time.perf_counter()
    while len(found := containers("idle")) < POOLS:
        if time.perf_counter() - begun > 120:
            break
        time.sleep(0.2)
    add(f"{runtime}_waiting", len(found), "containers")
    private = [sum(map(unique, [psutil.Process(pid), *psutil.Process(pid).children()])) for pid in found]
    for size in private:
        add(f"{runtime}_private", size / 1e6, "MB")


def unique(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss)


def containers(state: str) -> list[int]:
    """Return the first processes of the containers in a state."""
    done = subprocess.run([TIDEMILL, "status", "--json"], check=True, capture_output=True, text=True)
    workers: list[dict[str, Any]] = json.loads(done.stdout)["workers"]
    return [one["pid"] for worker in workers for one in worker["containers"] if one["state"] == state]


def measure(runtime: str, add: Add) -> None:
    """Measure one runtime."""
    with roomy(runtime) as home, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = load(write(folder))
        with program.app.run():
            first_calls(add, program, runtime)
            starts(add, home, runtime)
            importing(add, program, runtime)
            burst(add, program, runtime)
        waiting(add, folder, runtime)


def main() -> None:
    """Measure each runtime in a process of its own: a client keeps to the stack that it found first."""
    if len(sys.argv) > 1:
        measure(sys.argv[1], lambda *figure: print(json.dumps(figure), flush=True))
        return
    report = Report("containers")
    for runtime in ("process", *(["bubblewrap"] if shutil.which("bwrap") else [])):
        done = subprocess.run([sys.executable, __file__, runtime], check=True, stdout=subprocess.PIPE)
        for line in done.stdout.splitlines():
            report.add(*json.loads(line))
    report.write()


if __name__ == "__main__":
    main()
