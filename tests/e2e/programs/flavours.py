"""A function that tells which version of it was deployed."""

import os
import time

import tidemill

app = tidemill.App("flavours")


@app.function(env={"FLAVOUR": os.environ.get("FLAVOUR", "")}, max_containers=2)
def flavour(seconds: float = 0.0) -> str:
    time.sleep(seconds)
    return os.environ["FLAVOUR"]
