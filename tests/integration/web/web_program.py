"""An app behind URLs: one function of each kind. What tests look at is said in responses and in output."""

import asyncio
import contextlib
import hashlib
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import BackgroundTasks, FastAPI, File, Form, Header, Request, UploadFile, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

import tidemill

app = tidemill.App("web-program")

# --- an ASGI app

events: list[str] = []  # what happened to requests


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    print("the app has started")
    yield {"started": os.getpid()}
    print("the app has ended")


site = FastAPI(lifespan=lifespan)


@site.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}


@site.get("/pid")
async def pid(request: Request) -> dict[str, int]:
    return {"pid": os.getpid(), "started": request.state.started}


@site.get("/scope")
@site.get("/scope/{rest:path}")
async def show_scope(request: Request) -> dict[str, Any]:
    scope = request.scope
    return {
        "client": scope["client"],
        "scheme": scope["scheme"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
        "root_path": scope["root_path"],
        "query": scope["query_string"].decode(),
        "http_version": scope["http_version"],
        "headers": dict(request.headers),
        "call": tidemill.current_function_call_id(),
    }


@site.api_route("/body", methods=["POST", "PUT", "PATCH", "DELETE"])
async def body(request: Request) -> dict[str, Any]:
    digest, size, pieces = hashlib.sha256(), 0, 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
        pieces += 1
    return {"method": request.method, "size": size, "pieces": pieces, "sha256": digest.hexdigest()}


@site.post("/slow-reader")
async def read_slowly(request: Request) -> int:
    """Read a little, and the rest only when somebody has asked for `/go-on`."""
    pieces = request.stream()
    first = len(await anext(pieces))
    await may_go_on.wait()
    may_go_on.clear()
    return first + sum([len(piece) async for piece in pieces])


may_go_on = asyncio.Event()


@site.get("/go-on")
async def go_on() -> None:
    may_go_on.set()


@site.post("/early")
async def early() -> PlainTextResponse:
    return PlainTextResponse("not wanted", 413)


@site.post("/back")
async def back(request: Request) -> StreamingResponse:
    return StreamingResponse(request.stream())


@site.get("/bytes")
async def some_bytes(size: int, declared: bool = False) -> StreamingResponse:
    async def produce() -> AsyncIterator[bytes]:
        left, piece = size, b"x" * 65_536
        while left:
            yield piece[:left]
            left -= min(left, len(piece))

    return StreamingResponse(produce(), headers={"content-length": str(size)} if declared else None)


produced = 0  # bytes, by the function below


@site.get("/count")
async def count_bytes(size: int) -> StreamingResponse:
    async def produce() -> AsyncIterator[bytes]:
        global produced
        produced = 0
        piece = b"x" * 65_536
        while produced < size:
            produced += len(piece)
            yield piece

    return StreamingResponse(produce())


@site.get("/produced")
async def tell_produced() -> int:
    return produced


@site.get("/events")
async def server_sent_events(count: int = 3) -> StreamingResponse:
    async def produce() -> AsyncIterator[str]:
        for number in range(count):
            if number:  # the others come when somebody has asked for `/go-on`
                await may_go_on.wait()
                may_go_on.clear()
            yield f"data: {number}\n\n"

    return StreamingResponse(produce(), media_type="text/event-stream")


@site.get("/endless")
async def endless() -> StreamingResponse:
    async def produce() -> AsyncIterator[str]:
        try:
            while True:
                yield "more\n"
                await asyncio.sleep(0.01)
        finally:
            events.append("endless ended")

    return StreamingResponse(produce())


@site.get("/breaks")
async def breaks(how: str) -> StreamingResponse:
    async def produce() -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.sleep(0.05)
        if how == "dies":
            os._exit(7)
        raise ValueError("in the middle")

    return StreamingResponse(produce(), headers={"content-length": "100"} if how == "short" else None)


@site.get("/dies")
async def dies() -> None:
    os._exit(7)


@site.get("/raises")
async def raises() -> None:
    raise ValueError("what the function raised")


@site.get("/says")
async def says() -> None:
    print("said in a request")


@site.get("/leads")
async def leads() -> str:
    return (await tell_url.spawn.aio()).object_id


running = most = 0  # requests of the function below


@site.get("/beside")
async def beside(seconds: float) -> int:
    """Return how many ran at the same time."""
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(seconds)
    running -= 1
    return most


@site.get("/sleeps")
async def sleeps(seconds: float) -> str:
    try:
        events.append("sleep begun")
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        events.append("sleep cancelled")
        raise
    return "slept"


@site.get("/happened")
async def happened() -> list[str]:
    return events


@site.get("/later")
async def later(tasks: BackgroundTasks) -> str:
    async def note() -> None:
        await may_go_on.wait()
        may_go_on.clear()
        events.append("done later")

    tasks.add_task(note)
    return "now"


@site.get("/headers")
async def headers() -> PlainTextResponse:
    response = PlainTextResponse("", 204)
    response.headers.append("set-cookie", "a=1")
    response.headers.append("set-cookie", "b=2")
    return response


class Trailers:
    """A response with trailers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        heading = [(b"trailer", b"x-checksum")]
        await send({"type": "http.response.start", "status": 200, "headers": heading, "trailers": True})
        await send({"type": "http.response.body", "body": b"content"})
        await send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"42")]})


site.mount("/trailers", Trailers())


@site.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    wanted = socket.scope["subprotocols"]
    await socket.accept(subprotocol=wanted[0] if wanted else None, headers=[(b"x-said", b"yes")])
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"], message.get("reason"))
            if message.get("text") == "close":
                await socket.close(4001, "as you wish")
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect as error:
        events.append(f"left with {error.code} {error.reason or ''}".rstrip())


@site.websocket("/refused")
async def refused(socket: WebSocket) -> None:
    await socket.close()


@site.websocket("/socket-dies")
async def socket_dies(socket: WebSocket) -> None:
    await socket.accept()
    os._exit(7)


# What requests leave behind in it is looked at by others: there is one container at a time.
@app.function(max_containers=1)
@tidemill.concurrent(max_inputs=100)
@tidemill.asgi_app()
def web() -> FastAPI:
    return site


@app.function(max_containers=1)
@tidemill.asgi_app(label="one-by-one")
def alone() -> FastAPI:
    return site


# --- functions that answer themselves


class Item(BaseModel):
    name: str
    qty: int = 42


@app.function()
@tidemill.fastapi_endpoint(docs=True)
def square(x: int, plus: int = 0, agent: str = Header("", alias="user-agent")) -> dict[str, Any]:
    return {"square": x**2 + plus, "agent": agent}


@app.cls()
class Power:
    """An object for each exponent, which has to be told."""

    exponent: int = tidemill.parameter()
    sign: str = tidemill.parameter(default="+")

    @tidemill.fastapi_endpoint(docs=True)
    async def of(self, base: int) -> dict[str, str]:
        return {"power": f"{self.sign}{base**self.exponent}"}


@app.function()
@tidemill.fastapi_endpoint(method="POST")
async def order(item: Item) -> dict[str, Any]:
    return {"told": f"{item.qty} of {item.name}"}


@app.function()
@tidemill.concurrent(max_inputs=4)
@tidemill.fastapi_endpoint(method="POST")
def form(title: str = Form(), file: UploadFile = File()) -> dict[str, Any]:
    return {"title": title, "name": file.filename, "size": len(file.file.read())}


# --- other kinds

inside = threading.Semaphore(0)
meeting = threading.Barrier(2)


def plain_wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/meet":  # two requests at the same time, each in a thread
        meeting.wait(60)
    start_response("200 OK", [("Content-Type", "text/plain")])
    said = environ["wsgi.input"].read()
    yield f"{environ['REQUEST_METHOD']} {environ['SCRIPT_NAME']} {environ['PATH_INFO']} ".encode()
    yield said


@app.function(max_containers=1)
@tidemill.concurrent(max_inputs=2)
@tidemill.wsgi_app()
def wsgi() -> Any:
    return plain_wsgi


SERVER = """
import asyncio, sys
from aiohttp import web

async def show(request):
    size = len(await request.read())
    sender = request.headers.get("x-forwarded-for")
    return web.json_response({"path": request.raw_path, "host": request.host, "size": size, "from": sender})

async def flow(request):
    response = web.StreamResponse()
    await response.prepare(request)
    async for piece in request.content.iter_any():
        await response.write(piece)
    return response

async def echo(request):
    socket = web.WebSocketResponse(protocols=("chat",))
    await socket.prepare(request)
    async for message in socket:
        await (socket.send_str(message.data) if message.type == 1 else socket.send_bytes(message.data))
    return socket

async def away(request):
    raise web.HTTPFound("/elsewhere")

async def die(request):
    import os
    os._exit(1)

app = web.Application(client_max_size=1 << 30)
app.add_routes([web.get("/echo", echo), web.get("/away", away), web.get("/die", die), web.post("/flow", flow),
                web.route("*", "/{rest:.*}", show)])
web.run_app(app, host="0.0.0.0", port=int(sys.argv[1]), print=None)
"""


def free_port() -> int:
    """Return a port for the server: containers of the process tier share the machine's.

    The server binds it later, so it is none of those that the system gives to whoever asks for any.
    """
    import random
    import socket

    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.randint(20_000, 32_000)))
            return int(probe.getsockname()[1])


PORT = int(os.environ.get("WEB_PROGRAM_PORT") or free_port())


@app.function(env={"WEB_PROGRAM_PORT": str(PORT)}, max_containers=1)
@tidemill.concurrent(max_inputs=20)
@tidemill.web_server(PORT, startup_timeout=30)
def server() -> None:
    import subprocess

    path = ":".join(sys.path)
    subprocess.Popen([sys.executable, "-c", SERVER, str(PORT)], env={**os.environ, "PYTHONPATH": path})


@app.function()
def tell_url() -> str | None:
    return web.get_web_url()


@app.function(timeout=8)
@tidemill.concurrent(max_inputs=10)
@tidemill.fastapi_endpoint()
async def impatient(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@app.function()
@tidemill.asgi_app()
def broken() -> None:
    time.sleep(0)
