"""A page behind a URL, and events that it streams. `tidemill run examples/web_page.py`"""

from collections.abc import AsyncIterator
from urllib.request import urlopen

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, StreamingResponse

import tidemill

app = tidemill.App("web-page")
web_app = FastAPI()


@web_app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse("<h1>Hello from a container</h1>")


@web_app.get("/count")
async def count(to: int = 3) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        for number in range(to):
            yield f"data: {number}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.function()
@tidemill.concurrent(max_inputs=20)
@tidemill.asgi_app()
def web() -> FastAPI:
    return web_app


@app.local_entrypoint()
def main() -> None:
    url = web.get_web_url()
    for path in ("/", "/count?to=2"):
        with urlopen(f"{url}{path}") as answer:
            print(answer.read().decode().strip())
