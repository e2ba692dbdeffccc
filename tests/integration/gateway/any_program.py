"""A function that takes anything."""

import tidemill

app = tidemill.App("any-program")


@app.function()
def anything(*args: object, **kwargs: object) -> int:
    return len(args) + len(kwargs)
