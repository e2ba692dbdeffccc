"""Calls that are under way while something happens to the stack."""

import time

import tidemill

app = tidemill.App("waiting")


@app.function()
def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.local_entrypoint()
def main() -> None:
    calls = [wait.spawn(0.2) for _ in range(2)]
    print("begun", flush=True)
    print("slow", wait.remote(6.0), flush=True)
    print("kept", [call.get(timeout=60) for call in calls], flush=True)
    print("after", list(wait.map([0.0] * 20)) == [0.0] * 20, flush=True)
