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
