"""Functions that talk with a person."""

import os
import time

import tidemill

app = tidemill.App("interactive")


@app.function()
def debugged() -> int:
    x = 41
    breakpoint()  # noqa: T100
    return x


@app.function()
def asking() -> str:
    name = input("name? ")
    print("hello", name)
    return name


@app.function()
def looping() -> None:
    tidemill.interact()
    print("size", *reversed(os.get_terminal_size()))
    while True:
        time.sleep(0.01)


@app.function()
def shell() -> int:
    tidemill.interact()
    return os.system("exec sh")


@app.function(scaledown_window=120)
def idle(gate: str = "/") -> int:
    while not os.path.exists(gate):
        time.sleep(0.01)
    return os.getpid()


@app.function()
def dies() -> None:
    tidemill.interact()
    print("about to die")
    os._exit(3)


@app.local_entrypoint()
def talk() -> None:
    print("result", debugged.remote())
    print("asked", asking.remote())
    print("local", input("here? "))


@app.local_entrypoint()
def hold() -> None:
    """Keep a container until somebody says that it is enough."""
    idle.remote()
    print(app.app_id, flush=True)
    input()


@app.local_entrypoint()
def hold_busy(gate: str) -> None:
    call = idle.spawn(gate)
    print(app.app_id, flush=True)
    print("finished", call.get() > 0, flush=True)
