"""Functions that leave a file for each of their attempts, for who takes processes away from them."""

import ctypes
import os
import time
from pathlib import Path

import tidemill

app = tidemill.App("losses")


def mark(folder: str, name: str) -> int:
    """Leave a file for this attempt; return how many attempts there were before."""
    before = len(list(Path(folder).glob(f"{name}-*")))
    Path(folder, f"{name}-{before}").write_text(str(os.getpid()))
    return before


@app.function()
def returns_at_the_second_attempt(folder: str) -> int:
    time.sleep(0.3)  # who takes this process away does so in the middle of its work
    attempts = mark(folder, "attempt")
    if attempts == 0:
        time.sleep(60)
    return attempts


@app.function()
def waits_for_go(folder: str) -> str:
    mark(folder, "waiting")
    while not Path(folder, "go").exists():
        time.sleep(0.02)
    return "went"


@app.function()
def cold(x: int) -> int:
    return x + 1


@app.function(max_containers=2)
def slow_square(x: int) -> int:
    time.sleep(0.001)
    return x * x


@app.function(timeout=120)
def holds_the_gil(folder: str, seconds: int) -> int:
    attempts = mark(folder, "held")
    ctypes.PyDLL(None).sleep(seconds)  # unlike CDLL it keeps the GIL
    return attempts


@app.local_entrypoint()
def lost_worker(folder: str):
    print(returns_at_the_second_attempt.remote(folder))


@app.local_entrypoint()
def lost_services(folder: str):
    print(waits_for_go.remote(folder))
    print(cold.remote(1))


@app.local_entrypoint()
def kept(folder: str):
    print(waits_for_go.spawn(folder).get())


@app.local_entrypoint()
def long_map(folder: str, ordered: bool = True):
    results = []
    for value in slow_square.map(range(5000), order_outputs=ordered):
        results.append(value)
        if len(results) == 300:
            Path(folder, "under-way").touch()
    wanted = [x * x for x in range(5000)]
    print(
        "exact" if (results if ordered else sorted(results)) == wanted else f"wrong: {len(results)} results"
    )


@app.local_entrypoint()
def gil(folder: str, seconds: int):
    print(holds_the_gil.remote(folder, seconds))
