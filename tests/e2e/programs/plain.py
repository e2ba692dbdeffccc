"""A plain script, which shows how each way of calling fails. Run by `python`, not by `tidemill run`."""

import asyncio
import sys
import traceback

import tidemill

app = tidemill.App("plain")


def broken(x):
    return {}[x]


@app.function()
def value(x):
    return broken(x)


@app.function()
def pieces(x):
    yield 1
    broken(x)


async def iterate(results):
    async for _ in results:
        pass


async def wait(call):
    await call


WAYS = {
    "remote": lambda: value.remote(1),
    "map": lambda: list(value.map([1])),
    "starmap": lambda: list(value.starmap([(1,)])),
    "for_each": lambda: value.for_each([1]),
    "spawn": lambda: value.spawn(1).get(),
    "gather": lambda: tidemill.FunctionCall.gather(value.spawn(1)),
    "iter": lambda: list(value.experimental_spawn_map([1]).iter()),
    "remote_gen": lambda: list(pieces.remote_gen(1)),
    "remote.aio": lambda: asyncio.run(wait(value.remote.aio(1))),
    "map.aio": lambda: asyncio.run(iterate(value.map.aio([1]))),
    "for_each.aio": lambda: asyncio.run(wait(value.for_each.aio([1]))),
    "remote_gen.aio": lambda: asyncio.run(iterate(pieces.remote_gen.aio(1))),
    "refused": lambda: value(1),
    "iterator": lambda: list(value.map(broken(x) for x in [1])),
}


if __name__ == "__main__":
    with app.run():
        for name, way in WAYS.items():
            try:
                way()
            except Exception:
                print(f"--- {name}\n{traceback.format_exc()}")
        sys.stdout.flush()
        value.remote(2)
