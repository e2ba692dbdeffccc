"""What is said of functions, classes and the web, said of containers in sandboxes."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import tidemill

app = tidemill.App("sandboxed")


@app.cls(max_containers=1)  # its turns are counted in one
class Wheel:
    teeth: int = tidemill.parameter(default=8)

    @tidemill.enter()
    def begin(self) -> None:
        self.turns = 0

    @tidemill.method()
    def turn(self) -> tuple[int, int, str]:
        self.turns += 1
        return self.teeth, self.turns, os.uname().nodename

    @tidemill.method()
    def spray(self) -> Iterator[int]:
        yield from range(self.teeth)


@app.function()
@tidemill.fastapi_endpoint()
def greeting(name: str) -> str:
    return f"Hello, {name} of {os.getuid()}!"


@app.function(timeout=4)  # enough to begin on a busy machine
def never_ends() -> None:
    stubborn = "import signal, time; signal.signal(15, 1); signal.signal(2, 1); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
    print("begun", os.environ["TIDEMILL_TASK_ID"], flush=True)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            continue


def connect(place: tuple[str, int]) -> None:
    """Connect with a port, and not with oneself: that is what a free port above 32,768 may come to."""
    with socket.create_connection(place, 1) as connection:
        if connection.getsockname() == connection.getpeername():
            raise ConnectionRefusedError("nobody else is there")


@app.function()
def reaches(paths: list[str], ports: list[int], addresses: list[str]) -> list[str]:
    """Return what can be reached of files, Unix sockets and ports of the machine."""
    tries: list[tuple[str, Callable[[], object]]] = []
    for path in paths:
        tries.append((f"file {path}", lambda path=path: os.stat(path)))
        tries.append((f"socket {path}", lambda path=path: socket.socket(socket.AF_UNIX).connect(path)))
    tries += [
        (f"port {place}", lambda place=place: connect(place))
        for place in itertools.product(("127.0.0.1", "localhost", *addresses), ports)
    ]
    found = [name for name in os.environ if "PASSWORD" in name or "SECRET" in name]
    for what, attempt in tries:
        try:
            attempt()
        except OSError:
            continue
        found.append(what)
    return found


@app.local_entrypoint()
def main(places: str) -> None:
    print("reached", reaches.remote(*json.loads(places)))
    wheel = Wheel(teeth=3)
    print(wheel.turn.remote()[:2], list(wheel.spray.remote_gen()))
    print([Wheel().turn.remote()[0], Wheel.with_options(memory=(64, 512))(teeth=5).turn.remote()[0]])
    with urllib.request.urlopen(f"{greeting.get_web_url()}?name=mill", timeout=60) as answer:
        print(answer.read().decode())
    try:
        never_ends.remote()
    except tidemill.exception.FunctionTimeoutError as error:
        print("FunctionTimeoutError:", error)
    print(wheel.turn.remote()[1])
