"""One WebSocket: to a container, and back."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from tidemill import _socket_messages, exception
from tidemill._duplex import Duplex, HalfEnded
from tidemill._wire.web import Route
from tidemill_gateway import problems
from tidemill_gateway.problems import Problem
from tidemill_gateway.web.calls import WebCall
from tidemill_gateway.web.http import fields

LOST = 1011  # the code that a client gets when its container is lost
INVALID = 1007  # text that is none
CLOSE = {"type": "websocket.close"}


async def serve(
    call: WebCall, route: Route, root_path: str, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve one connection to its end. Raises `Problem`, `Error` as long as it was not accepted."""
    await receive()  # websocket.connect
    call.start(fields(scope, root_path, b"", more=True))
    try:
        await _serve(call, route, receive, send)
    except asyncio.CancelledError:
        call.cancel()
        raise
    finally:
        call.leave()


async def _serve(call: WebCall, route: Route, receive: Receive, send: Send) -> None:
    up = asyncio.create_task(_up(call, receive), name=f"client of {call.id}")
    try:
        async with asyncio.timeout(route.startup_timeout + route.timeout):
            name, value = await call.answer
        if not name:
            await _deny(value[:3], send)
            return
        subprotocol, headers = value
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
        assert call.stream is not None
        await _down(call.stream, send)
    except TimeoutError:
        call.cancel()
        raise Problem(504, "timeout", "no container has answered in time") from None
    except asyncio.CancelledError:
        if not call.answer.cancelled():
            raise
    finally:
        up.cancel()


async def _up(call: WebCall, receive: Receive) -> None:
    """Pass on what the client says. One that leaves before it was let in cancels the request."""
    while True:
        message = await receive()
        stream = call.stream
        try:
            if message["type"] == "websocket.disconnect":
                if stream is None:
                    call.cancel()
                else:
                    stream.end((message.get("code", 1005), message.get("reason") or ""))
                return
            if stream is not None:
                text = message.get("text")
                await _socket_messages.send(stream, text if text is not None else message["bytes"])
        except (exception.Error, HalfEnded):
            return


async def _down(stream: Duplex, send: Send) -> None:
    """Pass on what the function says."""
    try:
        while (message := await _socket_messages.receive(stream)) is not None:
            kind = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", kind: message})
        code, reason = stream.word or (1000, "")
    except exception.Error:
        code, reason = LOST, "the container was lost"
    except UnicodeDecodeError:
        code, reason = INVALID, ""
    stream.end((code, reason))
    try:
        await send({**CLOSE, "code": code, "reason": reason})
    except RuntimeError:
        return  # the client has closed it already


async def _deny(response: tuple[int, Any, bytes], send: Send) -> None:
    status, headers, body = response
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def refuse(problem: Problem, request_id: str, send: Send) -> None:
    """Answer a handshake with a problem."""
    response = problems.response(problem, request_id)
    await _deny((response.status_code, response.raw_headers, bytes(response.body)), send)
