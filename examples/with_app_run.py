"""The same without the command line: `python examples/with_app_run.py`"""

import tidemill

app = tidemill.App("with-app-run")


@app.function()
def double(x: int) -> int:
    return 2 * x


if __name__ == "__main__":
    with app.run():
        print(double.remote(21))
