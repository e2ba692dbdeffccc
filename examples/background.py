"""Start now, read later: `.spawn()` and `FunctionCall`. `tidemill run examples/background.py`"""

import time

import tidemill

app = tidemill.App("background")


@app.function()
def slow_sum(numbers: list[int]) -> int:
    time.sleep(1)
    return sum(numbers)


@app.local_entrypoint()
def main() -> None:
    call = slow_sum.spawn([1, 2, 3])
    print(f"started {call.object_id}")
    try:
        call.get(timeout=0)
    except TimeoutError:
        print("not ready yet")
    print(call.get(timeout=30))
