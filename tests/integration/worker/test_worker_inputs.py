"""Inputs go in, outputs come out, and nothing is acknowledged before it is stored."""

from worker_stage import Stage

from tidemill._wire.messages import Status


async def test_a_call_is_executed_and_its_output_comes_back(stage: Stage) -> None:
    pool = await stage.pool("def f(x, y):\n    return x * y")
    (container,) = await stage.place(pool)
    output = await stage.result(await stage.call(pool, (6, 7)))
    assert (output.output.status, output.value, output.container) == (Status.SUCCESS, 42, container)
    await stage.settled(pool)
