"""Functions that fail in their own ways."""

import os
import threading

import tidemill

app = tidemill.App("failing")


class Broken(Exception):
    pass


class Unreadable(Exception):
    """One that cannot be made again from its arguments, as pickle does."""

    def __init__(self, part: str, count: int) -> None:
        super().__init__(f"{part} broke {count} times")


def inner(key: str) -> str:
    return {"a": "b"}[key]


@app.function()
def fails(key: str) -> str:
    return inner(key)


@app.function()
def breaks() -> None:
    raise Broken("the wheel")


@app.function()
def breaks_unreadably() -> None:
    raise Unreadable("wheel", 3)


@app.function()
def leaves() -> None:
    raise SystemExit(3)


@app.function()
def ends_its_process() -> None:
    os._exit(7)


@app.function()
def shouts() -> None:
    raise ValueError("x" * (3 << 20))


@app.function()
def gives(what: str) -> object:
    return threading.Lock() if what == "lock" else what


@app.function()
def takes(value: object) -> str:
    return type(value).__name__


def outcome(call, *args) -> str:
    try:
        return f"returned {call(*args)!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:3000]}"


@app.local_entrypoint()
def main():
    fails.remote("missing")


@app.local_entrypoint()
def handled():
    for name, call, args in [
        ("own class", breaks.remote, ()),
        ("unreadable class", breaks_unreadably.remote, ()),
        ("base exception", leaves.remote, ()),
        ("ended process", ends_its_process.remote, ()),
        ("huge exception", shouts.remote, ()),
        ("unpicklable result", gives.remote, ("lock",)),
        ("unpicklable argument", takes.remote, (threading.Lock(),)),
        ("afterwards", gives.remote, ("fine",)),
    ]:
        print(f"{name}: {outcome(call, *args)}")


@app.local_entrypoint()
def mapped():
    print([type(value).__name__ for value in fails.map(["a", "x", "a"], return_exceptions=True)])
