"""The functions that the load suite calls."""

import time
from typing import Any

from measure import RUNS

import tidemill

app = tidemill.App("load")
CPU = 0.02  # of a core for each container: it sleeps, and there are to be slots enough

Nap = tidemill.Function[[float], None, None]


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def _nap(name: str, **options: Any) -> Nap:
    return app.function(serialized=True, name=name, cpu=CPU, **options)(sleep)


naps = [_nap(f"nap{run}", scaledown_window=10) for run in range(RUNS)]
noisy = _nap("noisy", scaledown_window=2)


@app.function(serialized=True)
def warm() -> None:
    """Have the template that containers are forked of made."""
