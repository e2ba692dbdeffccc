"""An app that two gateways answer for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Header
from fastapi.responses import StreamingResponse

import tidemill

app = tidemill.App("doubled")
LAST = 20
site = FastAPI()


@site.get("/")
async def hello() -> str:
    return "hello"


@site.get("/hold")
async def hold(folder: str) -> str:
    """Answer when it may."""
    Path(folder, "held").touch()
    while not Path(folder, "go").exists():
        await asyncio.sleep(0.01)
    return "held"


@site.get("/numbers")
async def numbers(folder: str, last_event_id: int = Header(default=0)) -> StreamingResponse:
    """Count, and wait in the middle until it may go on."""

    async def events() -> AsyncIterator[bytes]:
        for number in range(last_event_id + 1, LAST + 1):
            while number > LAST // 2 and not Path(folder, "go").exists():
                await asyncio.sleep(0.01)
            yield f"id: {number}\ndata: {number}\n\n".encode()

    return StreamingResponse(events(), media_type="text/event-stream")


@app.function()
@tidemill.concurrent(max_inputs=50)
@tidemill.asgi_app()
def web() -> FastAPI:
    return site
