"""A module that can be imported here, but not in a container."""

import tidemill

app = tidemill.App("fails-at-import")

if not tidemill.is_local():
    raise RuntimeError("not in a container")


@app.function()
def never() -> None:
    pass


@app.local_entrypoint()
def main():
    never.remote()
