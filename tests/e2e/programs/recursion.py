"""A function that calls itself, and asks for every core each time."""

import os

import tidemill

app = tidemill.App("recursion")


@app.function(cpu=float(len(os.sched_getaffinity(0))), timeout=60)
def deep(n: int) -> int:
    return n if n == 0 else deep.remote(n - 1) + 1


@app.local_entrypoint()
def run() -> None:
    print(deep.remote(4))
