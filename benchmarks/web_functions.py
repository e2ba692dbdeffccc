"""The web app that is measured: behind Tidemill's gateway, and directly on uvicorn."""

from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.websockets import WebSocketDisconnect

import tidemill

PIECE = b"x" * 65_536

app = tidemill.App("web-bench")
site = FastAPI()


@site.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}


@site.get("/events")
async def events() -> StreamingResponse:
    async def produce() -> AsyncIterator[str]:
        for number in range(100):
            yield f"data: {number}\n\n"

    return StreamingResponse(produce(), media_type="text/event-stream")


@site.get("/down")
async def down(megabytes: int) -> StreamingResponse:
    async def produce() -> AsyncIterator[bytes]:
        for _ in range(megabytes * 16):
            yield PIECE

    return StreamingResponse(produce())


@site.post("/up")
async def up(request: Request) -> int:
    return sum([len(piece) async for piece in request.stream()])


@site.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        return


@app.function(min_containers=1, max_containers=1)
@tidemill.concurrent(max_inputs=1_000)
@tidemill.asgi_app()
def web() -> FastAPI:
    return site
