"""A function and a page whose next version cannot be imported before a lock is free."""

import fcntl
import os
from pathlib import Path

import tidemill

app = tidemill.App("rolling")
SAID = os.environ.get("ROLLING_SAID", "")
GATE = os.environ.get("ROLLING_GATE", "")
options = {"env": {"ROLLING_SAID": SAID, "ROLLING_GATE": GATE}, "scaledown_window": 60}

if GATE and not tidemill.is_local():
    Path(GATE, os.environ["TIDEMILL_TASK_ID"]).touch()
    with Path(GATE, "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


@app.function(**options)
def answer() -> str:
    return SAID


@app.function(**options)
@tidemill.fastapi_endpoint()
def page() -> str:
    return SAID
