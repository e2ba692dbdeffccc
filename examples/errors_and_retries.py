"""Failures come back as they are, and can be tried again. `tidemill run examples/errors_and_retries.py`"""

import random

import tidemill

app = tidemill.App("errors-and-retries")


@app.function(retries=tidemill.Retries(max_retries=5, initial_delay=1.0, backoff_coefficient=1.0))
def flaky(seed: int) -> str:
    if random.random() < 0.3:
        raise ConnectionError("the other side hung up")
    return f"input {seed} went through"


@app.function()
def divide(a: float, b: float) -> float:
    return a / b


@app.local_entrypoint()
def main() -> None:
    print(flaky.remote(1))
    try:
        divide.remote(1, 0)
    except ZeroDivisionError as error:
        print(f"as expected: {error}")
    print(list(divide.starmap([(1, 2), (1, 0), (9, 3)], return_exceptions=True)))
