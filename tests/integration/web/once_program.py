"""Functions that show how often they ran."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import Request
from fastapi.responses import StreamingResponse

import tidemill

app = tidemill.App("once-program")


@app.function()
@tidemill.concurrent(max_inputs=10)
@tidemill.fastapi_endpoint(method="POST")
async def counted(request: Request, path: str, until: str = "") -> StreamingResponse:
    with Path(path).open("a") as file:
        file.write("ran\n")
    body = await request.body()
    while until and not Path(until).exists():
        await asyncio.sleep(0.01)

    async def pieces() -> AsyncIterator[bytes]:
        yield f"run {len(Path(path).read_text().splitlines())} of ".encode()
        await asyncio.sleep(0.05)
        yield body

    return StreamingResponse(pieces(), headers={"x-mine": "1"})
