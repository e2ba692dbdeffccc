"""Functions that run inputs together. Containers import this file, so it imports nothing of the tests."""

import asyncio
import os
import threading

import tidemill

app = tidemill.App("together")
barrier = threading.Barrier(4)


@app.function(max_containers=1)
@tidemill.concurrent(max_inputs=4)
def meets(x: int) -> tuple[int, int, str | None]:
    if x >= 0:
        barrier.wait(20)
    else:
        threading.Event().wait()
    return x, os.getpid(), tidemill.current_input_id()


@app.cls(max_containers=1, timeout=2)
@tidemill.concurrent(max_inputs=4)
class Tasks:
    @tidemill.method()
    async def run(self, x: int) -> tuple[int, int]:
        if x < 0:
            await asyncio.Event().wait()
        return x, os.getpid()


@app.function(max_containers=1)
@tidemill.batched(max_batch_size=3, wait_ms=5_000)
def full(x: list[int]) -> list[tuple[int, int]]:
    return [(each, len(x)) for each in x]


@app.function(max_containers=1)
@tidemill.batched(max_batch_size=100, wait_ms=100)
def partial(x: list[int], y: list[int]) -> list[int]:
    return [a + b + len(x) for a, b in zip(x, y, strict=True)]
