"""RFC 6455 and 7692 frame by frame: what a server has to bear, and what it has to refuse.

The suite that others wrote, Autobahn|Testsuite, runs on Python 2.7 only: where it is installed,
`test_autobahn.py` runs it against the same function. So that every run of the tests has its cases, they stand
here by hand.
"""

import zlib
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from raw_sockets import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawSocket,
    ask,
    close,
    frame,
    handshake,
)
from waiting import until
from web_site import Site

DEFLATE = {"sec_websocket_extensions": "permessage-deflate"}
TOO_LARGE = 17 << 20  # bytes; the gateway takes 16 MiB
BORDERS = (0, 1, 125, 126, 127, 128, 65_535, 65_536, 200_000)
UMLAUT, SMILE = "ä".encode(), "😀".encode()


def code_of(frames: Sequence[Frame]) -> int:
    """Return the code with which a server closed, after nothing else."""
    assert [frame.opcode for frame in frames] == [CLOSE], frames
    return int.from_bytes(frames[0].data[:2], "big")


@pytest.fixture
async def socket(site: Site) -> AsyncIterator[RawSocket]:
    """A connection to a function that sends back what it gets."""
    socket = await ask(site.socket("web", "/echo"))
    assert socket.head.startswith("HTTP/1.1 101"), socket.head
    yield socket
    socket.end()


# --- what has to be borne

ECHOES: dict[str, tuple[Sequence[bytes], Sequence[Frame]]] = {
    **{
        f"{kind} of {size} bytes": ([frame(opcode, b"x" * size)], [Frame(opcode, b"x" * size)])
        for kind, opcode in (("text", TEXT), ("binary", BINARY))
        for size in BORDERS
    },
    "a message byte by byte": (
        [bytes([byte]) for byte in frame(TEXT, b"slowly" * 30)],
        [Frame(TEXT, b"slowly" * 30)],
    ),
    "two messages in one write": (
        [frame(TEXT, b"one") + frame(BINARY, b"two")],
        [Frame(TEXT, b"one"), Frame(BINARY, b"two")],
    ),
    "text in fragments": (
        [frame(TEXT, b"one ", fin=False), frame(CONTINUATION, b"", fin=False), frame(CONTINUATION, b"two")],
        [Frame(TEXT, b"one two")],
    ),
    "bytes in fragments that are empty": (
        [frame(BINARY, fin=False), frame(CONTINUATION, b"\xff", fin=False), frame(CONTINUATION)],
        [Frame(BINARY, b"\xff")],
    ),
    "nothing at all, in fragments": (
        [frame(TEXT, fin=False), frame(CONTINUATION, fin=False), frame(CONTINUATION)],
        [Frame(TEXT, b"")],
    ),
    "a character over the border of fragments": (
        [frame(TEXT, SMILE[:1], fin=False), frame(CONTINUATION, SMILE[1:])],
        [Frame(TEXT, SMILE)],
    ),
    "the ends of Unicode": (
        [frame(TEXT, "\0\ud7ff\ue000\uffff\U0010ffff".encode())],
        [Frame(TEXT, "\0\ud7ff\ue000\uffff\U0010ffff".encode())],
    ),
    "a ping between fragments": (
        [frame(TEXT, b"a", fin=False) + frame(PING, b"hear?") + frame(CONTINUATION, b"b")],
        [Frame(PONG, b"hear?"), Frame(TEXT, b"ab")],
    ),
    "a pong between fragments": (
        [frame(TEXT, b"a", fin=False), frame(PONG, b"unasked"), frame(CONTINUATION, b"b")],
        [Frame(TEXT, b"ab")],
    ),
    "pings": (
        [frame(PING, data) for data in (b"", b"\x00\xff", b"x" * 125)],
        [Frame(PONG, data) for data in (b"", b"\x00\xff", b"x" * 125)],
    ),
    "many pings in one write": (
        [b"".join(frame(PING, b"%d" % number) for number in range(20))],
        [Frame(PONG, b"%d" % number) for number in range(20)],
    ),
    "pongs that nobody asked for": (
        [frame(PONG), frame(PONG, b"x" * 125), frame(TEXT, b"a")],
        [Frame(TEXT, b"a")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), ECHOES.values(), ids=ECHOES.keys())
async def test_what_is_right_is_answered(
    socket: RawSocket, sent: Sequence[bytes], expected: Sequence[Frame]
) -> None:
    await socket.send(*sent)
    assert [await socket.receive() for _ in expected] == expected
    await socket.send(close(1000))
    assert code_of(await socket.rest()) == 1000


# --- what has to be refused

FAULTS: dict[str, tuple[int, Sequence[bytes]]] = {
    **{f"reserved bits {rsv:03b}": (1002, [frame(TEXT, b"a", rsv=rsv)]) for rsv in range(1, 8)},
    "a reserved bit of a ping": (1002, [frame(PING, rsv=1)]),
    "a reserved bit of a close": (1002, [frame(CLOSE, rsv=4)]),
    **{f"opcode {opcode}": (1002, [frame(opcode, b"a")]) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "text without a mask": (1002, [frame(TEXT, b"a", masked=False)]),
    "an empty ping without a mask": (1002, [frame(PING, masked=False)]),
    "a close without a mask": (1002, [frame(CLOSE, b"\x03\xe8", masked=False)]),
    "a ping in fragments": (1002, [frame(PING, fin=False)]),
    "a pong in fragments": (1002, [frame(PONG, fin=False)]),
    "a close in fragments": (1002, [frame(CLOSE, b"\x03\xe8", fin=False)]),
    "a ping of 126 bytes": (1002, [frame(PING, b"x" * 126)]),
    "a pong of 126 bytes": (1002, [frame(PONG, b"x" * 126)]),
    "a close of 126 bytes": (1002, [close(1000, b"x" * 124)]),
    "a continuation of nothing": (1002, [frame(CONTINUATION, b"a")]),
    "the begin of a continuation of nothing": (1002, [frame(CONTINUATION, b"a", fin=False)]),
    "a message inside another one": (1002, [frame(TEXT, b"a", fin=False), frame(TEXT, b"b")]),
    "text inside bytes": (1002, [frame(BINARY, b"a", fin=False), frame(TEXT, b"b", fin=False)]),
    "a close of one byte": (1002, [frame(CLOSE, b"\x03")]),
    **{
        f"a close with {code}": (1002, [close(code)])
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
    "a close whose reason is no UTF-8": (1007, [close(1000, b"\xc3\x28")]),
    **{
        f"text with {name}": (1007, [frame(TEXT, b"ab" + data)])
        for name, data in {
            "a stray byte": b"\xff",
            "a stray continuation": b"\x80",
            "half a character": UMLAUT[:1],
            "an overlong character": b"\xc0\xaf",
            "a surrogate": b"\xed\xa0\x80",
            "more than Unicode has": b"\xf4\x90\x80\x80",
        }.items()
    },
    "half a character in a fragment": (
        1007, [frame(TEXT, b"a" + UMLAUT[:1], fin=False), frame(CONTINUATION, b"b")],
    ),
    "half a character in the last fragment": (
        1007, [frame(TEXT, b"a", fin=False), frame(CONTINUATION, UMLAUT[:1], fin=False), frame(CONTINUATION)],
    ),
    "a message that is too large": (1009, [frame(BINARY, declared=TOO_LARGE)]),
    "fragments that are too large together": (
        1009, [frame(BINARY, b"a", fin=False), frame(CONTINUATION, declared=16 << 20)],
    ),
    "a length of 64 bits": (1009, [frame(BINARY, declared=(1 << 64) - 1)]),
}  # fmt: skip


@pytest.mark.parametrize(("code", "sent"), FAULTS.values(), ids=FAULTS.keys())
async def test_what_breaks_the_protocol_closes_the_connection(
    socket: RawSocket, code: int, sent: Sequence[bytes]
) -> None:
    await socket.send(*sent)
    assert code_of(await socket.rest()) == code


# --- how a connection ends

CLOSES = {
    **{f"{code}": (code, b"") for code in (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999)},
    "a reason": (1000, "as it is 😀".encode()),
    "a reason of 123 bytes": (4321, b"x" * 123),
}


@pytest.mark.parametrize(("code", "reason"), CLOSES.values(), ids=CLOSES.keys())
async def test_a_close_comes_back_as_it_was_sent(socket: RawSocket, code: int, reason: bytes) -> None:
    await socket.send(close(code, reason))
    assert await socket.rest() == [Frame(CLOSE, code.to_bytes(2, "big") + reason)]


async def test_a_close_without_a_code_is_answered_without_one(socket: RawSocket) -> None:
    await socket.send(frame(CLOSE))
    assert await socket.rest() == [Frame(CLOSE, b"")]


async def test_a_close_may_stand_between_fragments(socket: RawSocket) -> None:
    await socket.send(frame(TEXT, b"a", fin=False), close(1001))
    assert code_of(await socket.rest()) == 1001


async def test_nothing_is_answered_after_a_close(socket: RawSocket) -> None:
    await socket.send(close(1000) + frame(TEXT, b"a") + frame(PING) + close(1001))
    assert code_of(await socket.rest()) == 1000


async def test_a_close_of_the_function_waits_for_the_clients(socket: RawSocket) -> None:
    await socket.send(frame(TEXT, b"close"))
    assert await socket.receive() == Frame(CLOSE, b"\x0f\xa1as you wish")
    await socket.send(frame(PING, b"too late"), close(4001))
    assert CLOSE not in [frame.opcode for frame in await socket.rest()]


async def test_what_broke_the_protocol_is_told_to_the_function(
    site: Site, client: httpx.AsyncClient, socket: RawSocket
) -> None:
    await socket.send(frame(TEXT, b"\xff"))
    assert code_of(await socket.rest()) == 1007

    async def told() -> bool:
        return "left with 1007" in (await client.get(site.url("web", "/happened"))).json()

    await until(told)


# --- compression


def deflated(data: bytes) -> bytes:
    """Return a message as permessage-deflate wants it, with a window that every server can have."""
    deflate = zlib.compressobj(wbits=-12)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


async def test_compressed_messages_are_taken_and_given(site: Site) -> None:
    socket = await ask(site.socket("web", "/echo"), handshake(**DEFLATE))
    assert "permessage-deflate" in socket.head
    data, inflate = b"often " * 20_000, zlib.decompressobj(wbits=-15)
    whole = deflated(data)
    await socket.send(frame(TEXT, whole[:9], fin=False, rsv=4), frame(PING), frame(CONTINUATION, whole[9:]))
    assert await socket.receive() == Frame(PONG, b"")
    answer = await socket.receive()
    assert answer is not None
    assert (answer.opcode, answer.rsv) == (TEXT, 4)
    assert len(answer.data) < 10_000
    assert inflate.decompress(answer.data + b"\0\0\xff\xff") == data
    await socket.send(frame(BINARY, b"plain"))
    answer = await socket.receive()
    assert answer is not None
    assert inflate.decompress(answer.data + b"\0\0\xff\xff") == b"plain"
    socket.end()


BAD_DEFLATE = {
    "what cannot be inflated": (1002, [frame(TEXT, b"\xff\xff\xff", rsv=4)]),
    "a flag in the middle": (
        1002, [frame(TEXT, deflated(b"a"), fin=False, rsv=4), frame(CONTINUATION, b"", rsv=4)],
    ),
    "a flag of a ping": (1002, [frame(PING, rsv=4)]),
    "text that is none": (1007, [frame(TEXT, deflated(b"\xff"), rsv=4)]),
    "little that becomes too much": (1009, [frame(BINARY, deflated(bytes(TOO_LARGE)), rsv=4)]),
}  # fmt: skip


@pytest.mark.parametrize(("code", "sent"), BAD_DEFLATE.values(), ids=BAD_DEFLATE.keys())
async def test_what_breaks_the_compression_closes_the_connection(
    site: Site, code: int, sent: Sequence[bytes]
) -> None:
    socket = await ask(site.socket("web", "/echo"), handshake(**DEFLATE))
    await socket.send(*sent)
    assert code_of(await socket.rest()) == code
    socket.end()


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        ("permessage-deflate; client_no_context_takeover; server_no_context_takeover", True),
        ("permessage-deflate; server_max_window_bits=8", False),  # fewer than the gateway has
        ("permessage-deflate; what=ever", False),
        ("permessage-bzip2", False),
        ("permessage-deflate; what=ever, permessage-deflate", True),
    ],
)
async def test_only_a_compression_that_is_known_is_agreed_on(site: Site, offer: str, agreed: bool) -> None:
    socket = await ask(site.socket("web", "/echo"), handshake(sec_websocket_extensions=offer))
    assert socket.head.startswith("HTTP/1.1 101")
    assert ("sec-websocket-extensions: permessage-deflate" in socket.head.lower()) is agreed
    socket.end()


# --- how a connection begins


async def test_a_handshake_is_answered_with_the_right_key(socket: RawSocket) -> None:
    head = socket.head.lower()
    assert f"sec-websocket-accept: {ACCEPT}".lower() in head
    assert "upgrade: websocket" in head
    assert "connection: upgrade" in head
    assert "sec-websocket-protocol" not in head
    assert "sec-websocket-extensions" not in head


REFUSED = {
    "an older version": (426, handshake(sec_websocket_version="8")),
    "no version": (426, handshake(sec_websocket_version="")),
    "no key": (400, handshake(sec_websocket_key="")),
    "a key that is too short": (400, handshake(sec_websocket_key="dGhlIA==")),
    "a key that is none": (400, handshake(sec_websocket_key="?" * 24)),
    "two keys": (400, [*handshake(), "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="]),
    "an extension that cannot be read": (400, handshake(sec_websocket_extensions="a;;")),
}


@pytest.mark.parametrize(("status", "headers"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_handshake_that_is_none_is_refused(site: Site, status: int, headers: list[str]) -> None:
    socket = await ask(site.socket("web", "/echo"), headers)
    assert socket.head.startswith(f"HTTP/1.1 {status}"), socket.head
    assert ("sec-websocket-version: 13" in socket.head.lower()) is (status == 426)
    socket.end()


async def test_subprotocols_may_stand_in_several_headers(site: Site) -> None:
    wanted = ["sec-websocket-protocol: first, second", "sec-websocket-protocol: third"]
    socket = await ask(site.socket("web", "/echo"), [*handshake(), *wanted])
    assert "sec-websocket-protocol: first\r\n" in socket.head.lower()
    await socket.send(close(1000))
    assert code_of(await socket.rest()) == 1000
    socket.end()
