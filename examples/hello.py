"""The first program: a function that runs elsewhere. `tidemill run examples/hello.py`"""

import tidemill

app = tidemill.App("hello")


@app.function()
def square(x: int) -> int:
    print(f"squaring {x}")
    return x * x


@app.local_entrypoint()
def main(n: int = 10) -> None:
    print(square.remote(7))
    print(sum(square.map(range(n))))
