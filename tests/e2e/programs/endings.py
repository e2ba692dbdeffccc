"""Functions that do not want to end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import tidemill

app = tidemill.App("endings")

STUBBORN = """
import os, signal, sys, time
os.setsid()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


def begin(folder: str) -> None:
    """Start a child that ignores signals in a session of its own, and leave both pids."""
    subprocess.Popen([sys.executable, "-c", STUBBORN, str(Path(folder, "child"))])
    while not Path(folder, "child").exists() or not Path(folder, "child").read_text():
        time.sleep(0.01)
    Path(folder, "parent").write_text(str(os.getpid()))


@app.function(timeout=6)  # enough for its child to start on a busy machine
def never_ends(folder: str) -> None:
    begin(folder)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            continue


@app.function()
def sleeps(folder: str) -> None:
    begin(folder)
    time.sleep(600)


@app.function()
def square(x: int) -> int:
    return x * x


@app.local_entrypoint()
def timeout(folder: str):
    try:
        never_ends.remote(folder)
    except tidemill.exception.FunctionTimeoutError as error:
        print(f"FunctionTimeoutError: {error}")
    print(square.remote(3))


@app.local_entrypoint()
def interrupted(folder: str):
    sleeps.remote(folder)
