"""Messages of a WebSocket on a duplex stream: in pieces that nobody splits again, the last one flagged."""

from tidemill._duplex import Duplex
from tidemill._wire.duplex import PIECE_TO_CONTAINER
from tidemill._wire.web import BINARY, EMPTY, FINAL, TEXT


async def send(stream: Duplex, message: str | bytes) -> None:
    """Send a message, in as many pieces as it takes. Raises as `Duplex.send` does."""
    kind = TEXT if isinstance(message, str) else BINARY
    content = message.encode() if isinstance(message, str) else message
    if not content:
        await stream.send(b"\0", kind | FINAL | EMPTY)
    for start in range(0, len(content), PIECE_TO_CONTAINER):
        piece = content[start : start + PIECE_TO_CONTAINER]
        is_last = start + PIECE_TO_CONTAINER >= len(content)
        await stream.send(piece, kind | FINAL if is_last else kind)


async def receive(stream: Duplex) -> str | bytes | None:
    """Return the next message, None at the end. Raises as `Duplex.receive` does."""
    pieces = []
    while (content := await stream.receive()) is not None:
        if not content.tag & EMPTY:
            pieces.append(content.data)
        if content.tag & FINAL:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            return data if content.tag & BINARY else data.decode()
    return None
