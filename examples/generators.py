"""Results as they come: a generator that runs elsewhere. `tidemill run examples/generators.py`"""

import time

import tidemill

app = tidemill.App("generators")


@app.function()
def countdown(n: int):
    for left in range(n, 0, -1):
        time.sleep(0.1)
        yield left


@app.local_entrypoint()
def main(n: int = 5) -> None:
    for left in countdown.remote_gen(n):
        print(left)
