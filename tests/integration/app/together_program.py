"""Functions that run inputs together. Containers import this file, so it imports nothing of the tests."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import tidemill

app = tidemill.App("together")
barrier = threading.Barrier(4)


@app.function(max_containers=1)
@tidemill.concurrent(max_inputs=4)
def meets(x: int) -> tuple[int, int, str | None]:
    if x >= 0:
        barrier.wait(60)
    else:
        threading.Event().wait()
    return x, os.getpid(), tidemill.current_input_id()


@app.cls(max_containers=1, timeout=4)
@tidemill.concurrent(max_inputs=4)
class Tasks:
    @tidemill.method()
    async def run(self, x: int) -> tuple[int, int]:
        if x < 0:
            await asyncio.Event().wait()
        return x, os.getpid()


@app.function(max_containers=1)
@tidemill.batched(max_batch_size=3, wait_ms=60_000)
def full(x: list[int]) -> list[tuple[int, int]]:
    return [(each, len(x)) for each in x]


@app.function(max_containers=1)
@tidemill.batched(max_batch_size=100, wait_ms=100)
def partial(x: list[int], y: list[int]) -> list[int]:
    return [a + b + len(x) for a, b in zip(x, y, strict=True)]


@app.function()
@tidemill.batched(max_batch_size=1, wait_ms=0)
def sizes(x: list[int]) -> list[tuple[int, str]]:
    return [(len(x), os.environ.get("OPTION", ""))] * len(x)


@app.cls(max_containers=1)
@tidemill.concurrent(max_inputs=4)
class Mixed:
    size: str = tidemill.parameter(default="")

    @tidemill.enter()
    def begin(self) -> None:
        self.all_there = threading.Barrier(4)
        self.running = self.most = 0

    @tidemill.method()
    def waits(self) -> tuple[int, str | None]:
        self.all_there.wait(60)
        return os.getpid(), tidemill.current_input_id()

    @tidemill.method()
    async def waits_async(self) -> tuple[int, str | None]:
        await asyncio.to_thread(self.all_there.wait, 60)
        return os.getpid(), tidemill.current_input_id()

    @tidemill.method()
    def yields(self) -> Iterator[tuple[int, str | None]]:
        self.all_there.wait(60)
        yield os.getpid(), tidemill.current_input_id()

    @tidemill.method()
    async def yields_async(self) -> AsyncIterator[tuple[int, str | None]]:
        await asyncio.to_thread(self.all_there.wait, 60)
        yield os.getpid(), tidemill.current_input_id()

    @tidemill.method()
    def what(self) -> tuple[int, str, str, str]:
        slots = tidemill.experimental.get_local_input_concurrency()
        return slots, self.size, os.environ.get("OPTION", ""), os.environ.get("OTHER", "")

    @tidemill.method()
    def narrow(self) -> int:
        tidemill.experimental.set_local_input_concurrency(1)
        return tidemill.experimental.get_local_input_concurrency()

    @tidemill.method()
    async def crowd(self, _x: int) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        return self.most

    @tidemill.method()
    def last(self) -> int:
        tidemill.experimental.stop_fetching_inputs()
        return os.getpid()

    @tidemill.method()
    def pid(self) -> int:
        return os.getpid()


@app.cls()
class Batches:
    @tidemill.batched(max_batch_size=1, wait_ms=0)
    @tidemill.method()
    async def sizes(self, x: list[int]) -> list[int]:
        return [len(x)] * len(x)


attempts: list[float] = []


@app.function(max_containers=1)
def attempt() -> list[float]:
    attempts.append(time.time())
    return attempts


@app.cls()
class Flaky:
    @tidemill.enter()
    def begin(self) -> None:
        self.tried: Any = attempt.remote()
        if len(self.tried) < 5:
            raise RuntimeError(f"attempt {len(self.tried)} failed")

    @tidemill.method()
    def works(self) -> list[float]:
        return self.tried  # type: ignore[no-any-return]
