"""The NATS protocol as bytes: what is written to the server, and what it sends.

Every input and every output passes here, so this is plain string work: no objects are made on the way.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

# What gets a message: subject, reply, header block and data. Reply and header block may be empty.
Handler = Callable[[bytes, bytes, bytes, bytes], None]

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
STATUS, DESCRIPTION = "Status", "Description"

_VERSION = b"NATS/1.0"
_MAX_LINE = 1 << 20  # an INFO line names every server of a cluster
_COPY_LIMIT = 32 * 1024  # data above this is written from where it lies


def checked(subject: str) -> str:
    """Return a subject if nothing in it could end or split the protocol line."""
    if not subject.isprintable() or " " in subject or not subject:
        raise ValueError(f"not a subject: {subject!r}")
    return subject


def header_block(headers: Mapping[str, str]) -> str:
    """Return headers as they are sent; `ValueError` for what would break out of its line."""
    lines = ["NATS/1.0"]
    for name, value in headers.items():
        if "\r" in value or "\n" in value or ":" in name or not name.isprintable():
            raise ValueError(f"not a header: {name!r}: {value!r}")
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines) + "\r\n\r\n"


def publication(subject: str, reply: str, block: str, data: bytes) -> tuple[bytes, ...]:
    """Return the pieces of the frame that publishes `data`, for one write."""
    if block:
        encoded = block.encode()
        size = len(encoded)
        head = f"HPUB {subject} {reply} {size} {size + len(data)}\r\n".encode() + encoded
    else:
        head = f"PUB {subject} {reply} {len(data)}\r\n".encode()
    if len(data) <= _COPY_LIMIT:
        return (b"%b%b\r\n" % (head, data),)
    return head, data, b"\r\n"


def parse_headers(block: bytes) -> Mapping[str, str]:
    """Return a header block as a mapping; its status line becomes `Status` and `Description`."""
    if not block:
        return NO_HEADERS
    first, _, rest = block.decode("utf-8", "replace").partition("\r\n")
    headers: dict[str, str] = {}
    if status := first[len(_VERSION) :].strip():
        headers[STATUS], _, headers[DESCRIPTION] = status.partition(" ")
    for line in rest.split("\r\n"):
        name, separator, value = line.partition(":")
        if separator:
            headers[name.strip()] = value.strip()
    return headers


class LazyHeaders(Mapping[str, str]):
    """A header block, read when somebody looks into it: few do."""

    __slots__ = ("_block", "_read")

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._read: Mapping[str, str] | None = None

    def _headers(self) -> Mapping[str, str]:
        if self._read is None:
            self._read = parse_headers(self._block)
        return self._read

    def __getitem__(self, name: str) -> str:
        return self._headers()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers())

    def __len__(self) -> int:
        return len(self._headers())


def status_of(block: bytes) -> int:
    """Return the status of a header block, 0 when it has none."""
    status = block[9:12]
    return int(status) if block[8:9] == b" " and status.isdigit() else 0


class Reader:
    """Cuts what arrives on one connection into messages and control lines, and hands each over at once.

    `handlers` maps subscription ids to what gets their messages: called synchronously, in order.
    """

    def __init__(self, handlers: dict[bytes, Handler], control: Callable[[bytes], None]) -> None:
        self._handlers = handlers
        self._control = control
        self._parts: list[bytes] = []  # of a message that has not arrived completely
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes. `ValueError` when they are not the NATS protocol."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return None
            data = b"".join(self._parts)
            self._parts.clear()
        position, size = 0, len(data)
        while position < size:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                if size - position > _MAX_LINE:
                    raise ValueError("a protocol line without end")
                return self._keep(data, position, size - position + 1)
            operation = data[position]
            if operation == 77:  # MSG <subject> <sid> [reply] <size>
                fields = data[position + 4 : line_end].split()
                start = line_end + 2
                end = start + int(fields[-1])
                header_end = start
                reply = fields[2] if len(fields) == 4 else b""
            elif operation == 72:  # HMSG <subject> <sid> [reply] <size of headers> <size of all>
                fields = data[position + 5 : line_end].split()
                start = line_end + 2
                end = start + int(fields[-1])
                header_end = start + int(fields[-2])
                reply = fields[2] if len(fields) == 5 else b""
            else:
                self._control(data[position:line_end])
                position = line_end + 2
                continue
            if end + 2 > size:
                return self._keep(data, position, end + 2 - position)
            position = end + 2
            handler = self._handlers.get(fields[1])
            if handler is None:
                continue
            try:
                handler(fields[0], reply, data[start:header_end], data[header_end:end])
            except Exception as error:
                _report(error, fields[0])
        return None

    def _keep(self, data: bytes, position: int, need: int) -> None:
        """Remember the beginning of what has not arrived completely."""
        rest = data[position:] if position else data
        self._parts.append(rest)
        self._have, self._need = len(rest), need


def _report(error: Exception, subject: bytes) -> None:
    """Tell the loop that a handler failed: one bad message must not end the connection."""
    context: dict[str, Any] = {
        "message": f"the handler of a message on {subject.decode()} failed",
        "exception": error,
    }
    asyncio.get_running_loop().call_exception_handler(context)
