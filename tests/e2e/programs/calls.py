"""Ordinary calls."""

import sys
import time

import tidemill

app = tidemill.App("calls")


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def later(x: int) -> int:
    """Take longer for the first inputs than for the last."""
    time.sleep((8 - x) * 0.05)
    return x


@app.function()
def chatty(word: str) -> str:
    print(f"said {word}")
    print(f"complained {word}", file=sys.stderr)
    return word.upper()


@app.function()
def count(n: int):
    yield from range(n)


@app.local_entrypoint()
def order():
    print(list(later.map(range(8))))
    print(sorted(later.map(range(8), order_outputs=False)))


@app.function()
async def count_later(n: int):
    for number in range(n):
        yield number


@app.local_entrypoint()
def generators():
    print(list(count.map([2, 0, 3])), count.spawn(3).get())
    print(list(count_later.map([1, 2])), count_later.spawn(2).get())
    print(list(count.experimental_spawn_map([1, 2]).iter()), list(count.remote_gen(2)))


@app.local_entrypoint()
async def awaited(x: int = 3):
    print(await square.remote.aio(x))


@app.local_entrypoint()
def words(*args):
    print(list(args))


@app.local_entrypoint()
def returned() -> str:
    return "the result"


@app.local_entrypoint()
def left(status: int):
    sys.exit(status)
