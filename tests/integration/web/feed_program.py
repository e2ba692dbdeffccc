"""A function whose events have ids, and which shows how often it ran."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import Header
from fastapi.responses import StreamingResponse

import tidemill

app = tidemill.App("feed-program")


@app.function()
@tidemill.concurrent(max_inputs=20)
@tidemill.fastapi_endpoint()
async def numbers(folder: str, count: int = 20, last_event_id: int = Header(default=0)) -> StreamingResponse:
    with Path(folder, "runs").open("a") as file:
        file.write(f"after {last_event_id}\n")

    async def events() -> AsyncIterator[bytes]:
        yield b": welcome\n\nda"
        yield b"ta: none\n\n"
        for number in range(last_event_id + 1, count + 1):
            while number > 10 and not Path(folder, "go").exists():
                await asyncio.sleep(0.01)
            yield f"id: {number}\ndata: n{number}\n\n".encode()
        Path(folder, "ended").touch()

    return StreamingResponse(events(), media_type="text/event-stream", headers={"x-mine": "1"})
