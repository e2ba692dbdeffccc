"""Apps that the tests run. Containers import this file, so it imports nothing of the tests."""

import os
import sys
import time
from collections.abc import Iterator

import local_library

import tidemill

image = (
    tidemill.Image.debian_slim()
    .env({"FROM_IMAGE": "image", "CHANGED": "image"})
    .workdir("/tmp")
    .add_local_python_source("local_library")
)

app = tidemill.App("programs", image=image, secrets=[tidemill.Secret.from_dict({"FROM_SECRET": "secret"})])
other = tidemill.App("other", image=image)
forgetful = tidemill.App("forgetful")


@app.function()
def square(x: int) -> int:
    print(f"squaring {x}")
    return x * x


@app.function(env={"FROM_ENV": "env", "CHANGED": "env"})
def environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("FROM_IMAGE", "FROM_SECRET", "FROM_ENV", "CHANGED")}


@app.function()
def both_streams() -> None:
    print("to output")
    print("to errors", file=sys.stderr)
    sys.stdout.write("no end")


@app.function()
def chatty(lines: int) -> None:
    for number in range(lines):
        print(f"line {number}")


@app.function()
def slowly(lines: int) -> None:
    for number in range(lines):
        print(f"line {number}", flush=True)
        time.sleep(0.02)


@app.function()
def count(n: int) -> Iterator[int]:
    yield from range(n)


@app.function()
def tripled(x: int) -> int:
    return local_library.triple(x)


@app.function()
def sleepy(seconds: float) -> None:
    print("asleep", flush=True)
    time.sleep(seconds)


@other.function()
def negated(x: int) -> int:
    return -x


@app.function()
def runs_another_app(x: int) -> int:
    with other.run():
        return negated.remote(x)


@forgetful.function()
def needs_a_library() -> int:
    return local_library.triple(1)
