"""Two workers that serve the same pool."""

from pathlib import Path
from typing import Any

from worker_stage import Stage, eventually

from tidemill._wire import ids
from tidemill._wire.specs import Pool

CODE = """
import os, time

def f(gate=""):
    while gate and not os.path.exists(gate):
        time.sleep(0.01)
    return os.environ["TIDEMILL_TASK_ID"]
"""


async def test_inputs_go_to_idle_containers_before_they_wait_for_busy_ones(
    alone: Stage, launch_worker: Any, tmp_path: Path
) -> None:
    for _ in range(2):
        await launch_worker().serving()
    await alone.until(lambda: len(alone.states) == 2)
    pool = await alone.pool(CODE)
    containers = [ids.new(ids.CONTAINER) for _ in range(2)]
    for worker, container in zip(sorted(alone.states), containers, strict=True):
        assert (await alone.ask_to_place(pool, container, worker=worker)).accepted
        await alone.event(container, "started")

    async def left(count: int) -> None:
        """Wait until so many are not acknowledged: who acknowledges has asked for the next before."""
        await eventually(lambda: is_left(alone, pool, count))

    seen: set[str] = set()
    while seen != set(containers):  # now both know that inputs are short, and want one more at hand
        calls = [await alone.call(pool, ()) for _ in range(10)]
        seen |= {(await alone.result(call)).value for call in calls}
    for round_ in range(3):
        await left(0)
        gate = tmp_path / f"gate-{round_}"
        long = await alone.call(pool, (str(gate),))
        short = []
        for _ in range(10):
            short.append((await alone.result(await alone.call(pool, ()))).value)
            await left(1)
        assert not alone.terminal(long)
        gate.touch()
        assert {*short, (await alone.result(long)).value} == set(containers)
        assert len(set(short)) == 1


async def is_left(stage: Stage, pool: Pool, count: int) -> bool:
    return await stage.backlog(pool) == count
