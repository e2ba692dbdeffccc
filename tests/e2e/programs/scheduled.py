"""Functions that schedules run, and that leave a file for each of their calls."""

import os
import time
from pathlib import Path

import tidemill

app = tidemill.App("scheduled")


@app.function(schedule=tidemill.Period(seconds=1), env={"MARKS": os.environ.get("MARKS", "")})
def tick() -> None:
    call = tidemill.current_function_call_id()
    Path(os.environ["MARKS"], f"call-{call}").touch()


@app.function(
    schedule=tidemill.Period(seconds=1),
    retries=tidemill.Retries(max_retries=1, initial_delay=0.0),
    env={"MARKS": os.environ.get("MARKS", "")},
)
def fails_once() -> None:
    folder, call = Path(os.environ["MARKS"]), tidemill.current_function_call_id()
    tries = len(list(folder.glob(f"try-{call}-*")))
    Path(folder, f"try-{call}-{tries}").touch()
    if tries == 0:
        raise RuntimeError("the first try fails")


@app.function(schedule=tidemill.Period(seconds=1), env={"MARKS": os.environ.get("MARKS", "")})
def overlaps() -> None:
    """Wait until another run is under way too; every run waits, as any of them may be the first."""
    folder, call = Path(os.environ["MARKS"]), tidemill.current_function_call_id()
    mark, together = Path(folder, f"running-{call}"), Path(folder, "together")
    mark.touch()
    deadline = time.monotonic() + 60
    while not together.exists() and time.monotonic() < deadline:
        if len(list(folder.glob("running-*"))) > 1:
            together.touch()
        time.sleep(0.02)
    mark.unlink()


@app.local_entrypoint()
def run() -> None:
    while not Path(os.environ["MARKS"], "stop").exists():
        time.sleep(0.02)
