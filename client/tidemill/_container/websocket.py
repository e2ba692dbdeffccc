"""One WebSocket to an ASGI app."""

from typing import Any

from tidemill import _socket_messages, exception
from tidemill._container.exchange import OVER_STREAM, Answer, ClientGone, Exchange
from tidemill._container.lifespan import Message
from tidemill._duplex import HalfEnded
from tidemill._wire.web import ACCEPT

LEAVE = 10.0  # seconds for an app to end when its client has gone, before its task is cancelled

DENIED: Answer = (403, (), b"")
GONE = (1006, "")  # code and reason of a connection that broke
NORMAL, INTERNAL_ERROR = 1000, 1011


class SocketExchange(Exchange):
    """A WebSocket, from its handshake to its end."""

    patience = LEAVE

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connected = False  # told to the app
        self._accepted = False
        self._closed = False  # by the app
        self._denial: Answer | None = None  # a response instead of a connection

    def begin(self) -> None:
        """Open the stream that is the connection."""
        self.open_stream()

    def scope(self) -> dict[str, Any]:
        """See `Exchange.scope`."""
        scope = super().scope()
        scope["scheme"] = "wss" if self._request.scheme in ("https", "wss") else "ws"
        scope["subprotocols"] = list(self._request.subprotocols)
        scope["extensions"] = {"websocket.http.response": {}}
        return scope

    async def receive(self) -> Message:
        """Return a message, or that the client has gone."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        try:
            found = await _socket_messages.receive(self.open_stream())
        except exception.Error:
            found = None
        if found is not None:
            return {"type": "websocket.receive", "text" if isinstance(found, str) else "bytes": found}
        word = self.open_stream().word if self.open_stream().error is None else GONE
        code, reason = word or GONE
        self.leave()
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def send(self, message: Message) -> None:
        """Take what the app sends."""
        match message["type"]:
            case "websocket.accept" if not self._accepted:
                self._accepted = True
                headers = list(message.get("headers", ()))
                self.open_stream().control(ACCEPT, (message.get("subprotocol"), headers))
            case "websocket.send" if self._accepted and not self._closed:
                await self._send(message.get("text"), message.get("bytes"))
            case "websocket.close" if not self._closed:
                self._closed = True
                word = message.get("code", NORMAL), message.get("reason") or ""
                self.open_stream().end(word)
            case "websocket.http.response.start" if not self._accepted and self._denial is None:
                self._denial = message["status"], list(message.get("headers", ())), b""
            case "websocket.http.response.body" if self._denial is not None:
                status, headers, body = self._denial
                self._denial = status, headers, body + message.get("body", b"")
            case kind:
                raise RuntimeError(f"the ASGI message {kind!r} has no place here")

    async def _send(self, text: str | None, data: bytes | None) -> None:
        try:
            await _socket_messages.send(self.open_stream(), text if text is not None else bytes(data or b""))
        except (exception.Error, HalfEnded) as error:
            raise ClientGone("the client has gone") from error

    async def end(self) -> Answer:
        """See `Exchange.end`."""
        if not self._accepted:
            return self._denial or DENIED
        if not self._closed:
            self.open_stream().end((INTERNAL_ERROR if not self._gone.is_set() else NORMAL, ""))
        return OVER_STREAM
