"""The functions that the Tidemill suite calls."""

import time
from typing import Any

import tidemill

app = tidemill.App("benchmark")


@app.function(min_containers=1, max_containers=2, scaledown_window=600)
def identity(value: Any) -> Any:
    return value


@app.function(min_containers=16, max_containers=16, scaledown_window=600)
def nap(seconds: float) -> None:
    time.sleep(seconds)


def cold_pool(number: int) -> tuple[tidemill.App, Any]:
    """Return an app of its own whose one pool has no container yet."""
    fresh = tidemill.App(f"benchmark-cold-{number}")

    def first(value: Any) -> Any:
        return value

    return fresh, fresh.function(serialized=True, name=f"first_{number}")(first)
