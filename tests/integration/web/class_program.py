"""Classes whose methods answer the web: several of one object, objects that parameters in the URL make."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

import tidemill

app = tidemill.App("web-classes")


@app.cls(max_containers=1)
@tidemill.concurrent(max_inputs=20)
class Shop:
    """Methods of every kind, which share one object."""

    @tidemill.enter()
    def open(self) -> None:
        self.sold: list[str] = []

    @tidemill.method()
    def sell(self, what: str) -> list[str]:
        self.sold.append(what)
        return self.sold

    @tidemill.method()
    async def wait(self) -> None:
        self.sold.append("waiting")
        await asyncio.Event().wait()

    @tidemill.method()
    def shelves(self, count: int) -> Iterator[int]:
        yield from range(count)

    @tidemill.fastapi_endpoint()
    async def look(self, more: str = "") -> dict[str, Any]:
        return {"sold": [*self.sold, *filter(None, [more])]}

    @tidemill.fastapi_endpoint(method="POST", label="web-classes-till")
    def pay(self, what: dict[str, str]) -> dict[str, Any]:
        return {"sold": self.sell.local(what["what"]), "look": self.look.get_web_url()}

    @tidemill.asgi_app()
    def site(self) -> FastAPI:
        site = FastAPI()
        site.get("/{name}")(self._page)
        return site

    async def _page(self, name: str, request: Request) -> dict[str, Any]:
        return {"name": name, "root_path": request.scope["root_path"], "sold": self.sold}


@app.cls(max_containers=1, retries=tidemill.Retries(max_retries=1, initial_delay=0.0))
class Stubborn:
    """A method that is tried again, beside one whose requests are not. One input at a time."""

    tries = 0

    @tidemill.method()
    def order(self, what: str) -> str:
        self.tries += 1
        if self.tries == 1:
            raise ValueError("not today")
        return f"{what} at {self.tries}"

    @tidemill.fastapi_endpoint()
    def fail(self) -> None:
        self.tries += 1
        raise ValueError("never")


@app.cls(max_containers=1)
@tidemill.concurrent(max_inputs=10)
class Greeter:
    """An object for each greeting."""

    greeting: str = tidemill.parameter()
    times: int = tidemill.parameter(default=1)
    loud: bool = tidemill.parameter(default=False)
    mark: bytes = tidemill.parameter(default=b"!")

    @tidemill.enter()
    def begin(self) -> None:
        self.answered = 0

    @tidemill.fastapi_endpoint()
    async def hello(self, name: str = "you") -> dict[str, Any]:
        self.answered += 1
        said = " ".join([self.greeting] * self.times) + f" {name}{self.mark.decode('latin-1')}"
        url = await self.hello.get_web_url.aio()
        return {"said": said.upper() if self.loud else said, "answered": self.answered, "url": url}

    @tidemill.asgi_app()
    def site(self) -> FastAPI:
        site = FastAPI()

        @site.websocket("/ws")
        async def talk(socket: WebSocket) -> None:
            await socket.accept()
            async for text in socket.iter_text():
                await socket.send_text(f"{self.greeting} {text}")

        @site.get("/events")
        async def events() -> StreamingResponse:
            async def each() -> AsyncIterator[str]:
                for number in range(3):
                    yield f"data: {self.greeting} {number}\n\n"

            return StreamingResponse(each(), media_type="text/event-stream")

        return site

    @tidemill.method()
    def bare(self) -> str:
        return f"{self.greeting} {self.answered}"
