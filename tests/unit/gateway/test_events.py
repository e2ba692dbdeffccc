"""How the body of an event stream is taken apart."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tidemill_gateway.web.events import Event, Splitter

BODY = (
    b"id: 1\ndata: a\n\n: ping\r\n\r\nid:2\r\ndata: id: x\r\n\r\n"
    b"id\ndata: b\n\ndata: c\n\nid: \xc3\xa4\rid: 9\r\rdata"
)
EVENTS = [
    Event(b"id: 1\ndata: a\n\n", b"1"),
    Event(b": ping\r\n\r\n", None),
    Event(b"id:2\r\ndata: id: x\r\n\r\n", b"2"),
    Event(b"id\ndata: b\n\n", b""),
    Event(b"data: c\n\n", None),
    Event(b"id: \xc3\xa4\rid: 9\r\r", b"9"),
]


@given(st.lists(st.integers(0, len(BODY)), max_size=8))
def test_it_does_not_matter_how_a_body_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(BODY)]
    splitter = Splitter()
    events = [event for start, end in itertools.pairwise(edges) for event in splitter.feed(BODY[start:end])]
    assert events == EVENTS
    assert splitter.held == len(b"data")
