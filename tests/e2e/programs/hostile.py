"""Everything that a function, its arguments and its results can be that they should not be."""

import os
import sys
import threading

import tidemill

app = tidemill.App("hostile")


class BadReduce(Exception):
    def __reduce__(self):
        raise RuntimeError("no reduce")


class BadText(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Meta(type):
    def __getattribute__(cls, name):
        if name == "__qualname__":
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=Meta):
    pass


class ExitsWhenRead:
    def __reduce__(self):
        return sys.exit, (3,)


class Unwritable:
    def __reduce__(self):
        raise RuntimeError("not to be written")


class Own(BaseException):
    pass


def circle():
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def endless(n=0):
    return endless(n + 1)


def nested():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


def locked():
    error = ValueError("has a lock")
    error.lock = threading.Lock()
    raise error


def noted():
    error = ValueError("odd notes")
    error.__notes__ = 5
    raise error


def large():
    raise ValueError("x" * (2 << 20), b"y" * (3 << 20))


def group():
    raise ExceptionGroup("several", [ValueError("one"), BadReduce("two")])


def raises(error):
    def function():
        raise error

    return function


FUNCTIONS = {
    "circle": circle,
    "endless recursion": endless,
    "nested result": nested,
    "error with a lock": locked,
    "error with odd notes": noted,
    "large error": large,
    "group": group,
    "bad reduce": raises(BadReduce("it")),
    "bad text": raises(BadText("it")),
    "nameless": raises(Nameless("it")),
    "base exception": raises(Own("it")),
    "exit": raises(SystemExit(3)),
    "interrupt": raises(KeyboardInterrupt()),
    "ended process": lambda: os._exit(9),
    "crash": os.abort,
    "locked result": threading.Lock,
    "result that exits": ExitsWhenRead,
    "result above the limit": lambda: bytes(300_000),
    "fine": lambda: "fine",
}


@app.function(env={"TIDEMILL_MAX_PAYLOAD": "200000"})
def run(name):
    return FUNCTIONS[name]()


@app.function(env={"TIDEMILL_MAX_PAYLOAD": "200000"})
async def run_async(name):
    return FUNCTIONS[name]()


@app.function(env={"TIDEMILL_MAX_PAYLOAD": "200000"})
def yields(name):
    yield FUNCTIONS[name]()


@app.function()
def takes(value):
    return type(value).__name__


ARGUMENTS = {
    "unwritable": Unwritable(),
    "lock": threading.Lock(),
    "exits": ExitsWhenRead(),
    "nested": nested(),
    "above the limit": bytes(500_000),
    "fine": b"fine",
}


def say(name, call):
    try:
        said = f"returned {call()!r}"
    except BaseException as error:
        text = BadText.__name__ if isinstance(error, BadText) else " ".join(str(error).split())[:200]
        said = f"{type(error).__name__}: {text} | {getattr(error, 'hint', '')}"
    print(f"{name} = {said}", flush=True)


@app.local_entrypoint()
def results(way: str):
    ways = {
        "remote": run.remote,
        "spawn": lambda name: run.spawn(name).get(),
        "map": lambda name: next(iter(run.map([name]))),
        "async": run_async.remote,
        "generator": lambda name: next(yields.remote_gen(name)),
    }
    for name in FUNCTIONS:
        say(name, lambda name=name: ways[way](name))
    say("afterwards", lambda: ways[way]("fine"))


@app.local_entrypoint()
def arguments():
    for name, value in ARGUMENTS.items():
        say(name, lambda value=value: takes.remote(value))
        say(f"{name}, mapped", lambda value=value: list(takes.map([1, value, 2])))
        say(f"{name}, spawned", lambda value=value: takes.spawn(value).get())
    say("too many", lambda: takes.remote(1, 2))
    say("afterwards", lambda: takes.remote(1))
