"""One request to an ASGI app in a container: what is sent for what the app does."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from waiting import PATIENCE, until

from tidemill import exception
from tidemill._container.exchange import HttpExchange
from tidemill._container.lifespan import Lifespan
from tidemill._container.outbox import Encoded
from tidemill._wire.duplex import Frame, Kind
from tidemill._wire.messages import Format, Status
from tidemill._wire.web import HTTP, MAX_INLINE, Request

START = {"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1")]}
HEADERS = [[b"x-a", b"1"]]


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Web:
    """The execution that an exchange belongs to, and what it was given to send."""

    ready_at = 0.0
    start: tuple[float, ...] = ()

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self.state: dict[str, Any] = {"shared": 1}
        self.frames: list[Frame] = []
        self.outcome: tuple[int, Encoded] | None = None
        self.noted: list[str] = []

    def note(self, input_id: str) -> None:
        self.noted.append(input_id)

    def transmit(self, _number: int, frame: Frame) -> None:
        self.frames.append(frame)

    def finish(self, _exchange: Any, status: int, payload: Encoded) -> None:
        self.outcome = status, payload

    @property
    def kinds(self) -> list[Kind]:
        """Return the kinds of the frames that carry the response."""
        return [Kind(frame[0]) for frame in self.frames if frame[0] != Kind.CREDIT]

    def response(self) -> tuple[int, list[Any], bytes]:
        """Return the response that is the input's output."""
        assert self.outcome is not None
        status, (form, data) = self.outcome
        assert (status, form) == (Status.SUCCESS, Format.HTTP)
        code, headers, content, *_ = msgpack.unpackb(data)
        return code, headers, content


async def ask(app: Callable[..., Any], *, content: bytes = b"") -> Web:
    web = Web(app)
    request = Request(HTTP, "GET", "http", "1.1", "/", b"/", b"", "", [], ("1.2.3.4", 5), None, content)
    exchange = HttpExchange(web, (1, 0), request)
    exchange.task = asyncio.create_task(exchange.run())
    await asyncio.wait_for(exchange.task, PATIENCE)
    return web


async def test_a_small_response_is_one_message() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["state"] == {"shared": 1}
        assert (await receive())["body"] == b"asked"
        await send(START)
        await send(body(b"answered"))
        assert (await receive())["type"] == "http.disconnect"

    web = await ask(app, content=b"asked")
    assert web.frames == []
    assert web.response() == (201, HEADERS, b"answered")


@pytest.mark.parametrize(
    "parts", [[body(b"a", more=True), body(b"b")], [body(b"x" * (MAX_INLINE + 1))]], ids=["parts", "large"]
)
async def test_other_responses_go_over_a_stream(parts: list[dict[str, Any]]) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        for part in parts:
            await send(part)

    web = Web(app)
    request = Request(HTTP, "GET", "http", "1.1", "/", b"/", b"", "", [], None, None)
    exchange = HttpExchange(web, (1, 0), request)
    exchange.task = asyncio.create_task(exchange.run())
    while not exchange.task.done():
        await asyncio.sleep(0)
        if exchange.stream is not None:
            exchange.stream.feed((Kind.CREDIT, 1 << 20, 0))
    assert web.kinds[0] is Kind.CONTROL
    assert web.kinds[-1] is Kind.END
    sent = b"".join(frame[3] for frame in web.frames if frame[0] == Kind.PIECE)
    assert sent == b"".join(part["body"] for part in parts)
    assert web.response()[0] == 0


async def test_an_app_that_goes_on_keeps_nobody_waiting() -> None:
    answered = asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"now"))
        await answered.wait()

    web = Web(app)
    request = Request(HTTP, "GET", "http", "1.1", "/", b"/", b"", "", [], None, None)
    exchange = HttpExchange(web, (1, 0), request)
    exchange.task = asyncio.create_task(exchange.run())
    await until(lambda: Kind.END in web.kinds)
    assert web.outcome is None  # it goes on
    answered.set()
    await exchange.task
    assert web.response()[0] == 0


async def test_an_app_without_a_response_has_failed(capfd: pytest.CaptureFixture[str]) -> None:
    async def silent(_scope: Any, _receive: Any, _send: Any) -> None:
        """Send nothing."""

    async def failing(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        raise ValueError("broken")

    for app in (silent, failing):
        web = await ask(app)
        assert web.response()[0] == 500
    assert "ValueError: broken" in capfd.readouterr().err


async def test_what_ends_in_the_middle_breaks_the_stream() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"begun", more=True))

    web = await ask(app)
    assert web.kinds[-1] is Kind.ABORT


# --- lifespans


async def test_a_lifespan_surrounds_the_requests() -> None:
    happened = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["made"] = True
        await send({"type": "lifespan.startup.complete"})
        happened.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    lifespan = Lifespan(app)
    await lifespan.start()
    assert lifespan.state == {"made": True}
    await lifespan.stop()
    assert happened == ["lifespan.shutdown"]


async def test_an_app_that_cannot_start_says_so() -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model"})

    with pytest.raises(exception.ExecutionError, match="did not start: no model"):
        await Lifespan(app).start()


@pytest.mark.parametrize("raises", [True, False])
async def test_an_app_that_fails_at_its_end_has_ended_and_says_so(
    raises: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if raises:
            raise ValueError("not even that")
        await send({"type": "lifespan.shutdown.failed", "message": "not even that"})

    lifespan = Lifespan(app)
    await lifespan.start()
    await lifespan.stop()
    assert "not even that" in capsys.readouterr().err


async def test_an_app_without_a_lifespan_is_none_the_worse() -> None:
    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        raise ValueError(f"what is {scope['type']}?")

    lifespan = Lifespan(app)
    await lifespan.start()
    await lifespan.stop()
