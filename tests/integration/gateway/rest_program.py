"""Functions that are called over REST."""

import datetime
import os
import time
from pathlib import Path

import tidemill

app = tidemill.App("rest-program")


class Money:
    """What only Python knows."""


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
async def echo(*args: object, **kwargs: object) -> dict[str, object]:
    return {"args": args, "kwargs": kwargs}


@app.function()
def rich() -> tuple[object, ...]:
    return datetime.date(2026, 1, 2), {3}, b"\x00\xff"


@app.function()
def pay() -> list[Money]:
    return [Money()]


@app.function()
def fail(x: object = "x") -> None:
    raise ValueError(f"not {x}")


@app.function(timeout=1)
def too_slow() -> None:
    time.sleep(60)


@app.function()
def wait_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.01)
    return Path(path).read_text()


@app.function()
def hold(folder: str) -> None:
    """Tell which container this is, and wait for the gate."""
    Path(folder, os.environ["TIDEMILL_TASK_ID"]).touch()
    while not Path(folder, "gate").exists():
        time.sleep(0.01)


@app.function()
def note(path: str) -> int:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    return len(Path(path).read_text().splitlines())


@app.function()
def size(text: str) -> int:
    return len(text)


@app.function()
def text_of(length: int) -> str:
    return "x" * length


@app.function()
def numbers(n: int):  # type: ignore[no-untyped-def]
    yield from range(n)


@app.function()
def say(*words: str) -> None:
    for word in words:
        print(word)


@app.function(retries=tidemill.Retries(max_retries=1, initial_delay=0.0))
def give_up(x: str) -> None:
    raise ValueError(f"not {x}")
