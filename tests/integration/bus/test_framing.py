"""The protocol as bytes: however they are cut on their way, the same messages come out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._bus.framing import Reader, header_block, parse_headers, publication, status_of

Got = list[tuple[bytes, bytes, bytes, bytes]]


def frame(sid: bytes, subject: bytes, reply: bytes, block: bytes, data: bytes) -> bytes:
    """Return a message as the server sends it."""
    fields = [subject, sid, *([reply] if reply else [])]
    if block:
        fields += [b"%d" % len(block), b"%d" % (len(block) + len(data))]
        return b"HMSG %b\r\n%b%b\r\n" % (b" ".join(fields), block, data)
    return b"MSG %b %d\r\n%b\r\n" % (b" ".join(fields), len(data), data)


messages = st.tuples(
    st.sampled_from([b"a", b"a.b.c", b"$JS.ACK.x.y.1.2.3.4.5"]),
    st.sampled_from([b"", b"_INBOX.x.1"]),
    st.sampled_from([b"", b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0 503\r\n\r\n"]),
    st.binary(max_size=60) | st.sampled_from([b"\r\n", b"MSG a 1 3\r\n", b"x" * 500]),
)


@given(st.lists(messages, max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_messages_survive_being_cut_anywhere(sent: Got, cuts: list[int]) -> None:
    got: Got = []
    lines: list[bytes] = []
    reader = Reader({b"7": lambda *parts: got.append(parts)}, lines.append)
    stream = b"PING\r\n".join([b"", *(frame(b"7", *message) for message in sent), b""])
    position = 0
    while position < len(stream):
        size = cuts[position % len(cuts)]
        reader.feed(stream[position : position + size])
        position += size
    assert got == sent
    assert lines == [b"PING"] * (len(sent) + 1)


def test_a_message_of_a_closed_subscription_is_skipped() -> None:
    got: Got = []
    reader = Reader({b"2": lambda *parts: got.append(parts)}, lambda _: None)
    reader.feed(frame(b"1", b"old", b"", b"", b"x") + frame(b"2", b"new", b"", b"", b"y"))
    assert got == [(b"new", b"", b"", b"y")]


def test_a_line_without_end_is_not_collected_for_ever() -> None:
    reader = Reader({}, lambda _: None)
    for _ in range(16):
        reader.feed(b"x" * 65_536)
    with pytest.raises(ValueError, match="without end"):
        reader.feed(b"x")


def test_a_large_message_is_put_together_once() -> None:
    got: Got = []
    reader = Reader({b"1": lambda *parts: got.append(parts)}, lambda _: None)
    data = bytes(range(256)) * 8_000
    stream = frame(b"1", b"large", b"", b"", data) * 2
    for start in range(0, len(stream), 65_536):
        reader.feed(stream[start : start + 65_536])
    assert [parts[3] for parts in got] == [data, data]


@pytest.mark.parametrize("size", [0, 1, 100, 32_768, 32_769, 1_000_000])
def test_a_publication_has_the_sizes_it_says(size: int) -> None:
    block = header_block({"A": "b"})
    plain = b"".join(publication("s", "r", "", b"x" * size))
    assert plain == b"PUB s r %d\r\n%b\r\n" % (size, b"x" * size)
    headed = b"".join(publication("s", "", block, b"x" * size))
    assert headed.startswith(b"HPUB s  %d %d\r\n" % (len(block), len(block) + size))


def test_headers_come_back_as_they_were() -> None:
    headers = {"Nats-Msg-Id": "fc-1.0.0", "Empty": "", "Text": "grüße: alle"}
    assert dict(parse_headers(header_block(headers).encode())) == headers


@pytest.mark.parametrize("headers", [{"A": "b\r\nC: d"}, {"A\n": "b"}, {"A:": "b"}])
def test_a_header_cannot_smuggle_in_another(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a header"):
        header_block(headers)


def test_a_status_is_read_with_its_description() -> None:
    block = b"NATS/1.0 409 Consumer Deleted\r\nNats-Pending-Messages: 2\r\n\r\n"
    assert status_of(block) == 409
    expected = {"Status": "409", "Description": "Consumer Deleted", "Nats-Pending-Messages": "2"}
    assert dict(parse_headers(block)) == expected
    assert status_of(b"NATS/1.0\r\nA: b\r\n\r\n") == 0
    assert status_of(b"") == 0
