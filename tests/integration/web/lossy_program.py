"""A bare ASGI app, and a function, for stacks that lose their parts."""

import asyncio
from pathlib import Path
from typing import Any

import tidemill

app = tidemill.App("lossy")


async def serve(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    seconds = float(scope["query_string"] or b"0")
    for name, value in scope["headers"]:
        if name == b"x-note":  # where to note that the request has begun
            Path(value.decode()).touch()
    if scope["path"].endswith("/stream"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    await asyncio.sleep(seconds)
    if not scope["path"].endswith("/stream"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


@app.function()
@tidemill.concurrent(max_inputs=50)
@tidemill.asgi_app()
def web() -> Any:
    return serve


@app.function()
def work() -> str:
    return "done"
