"""Frames survive any cutting into pieces."""

import socket
import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidemill._container import sockets

FRAMES = st.lists(
    st.tuples(st.integers(0, 20), st.binary(max_size=100), st.one_of(st.none(), st.text(max_size=20)))
)


@given(FRAMES, st.lists(st.integers(1, 50)))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[tuple[Any, ...]], cuts: list[int]
) -> None:
    data = b"".join(map(sockets.pack, frames))
    found: list[Any] = []
    rest = b""
    for size in [*cuts, len(data)]:
        piece, data = data[:size], data[size:]
        some, rest = sockets.split(rest + piece)
        found += some
    assert found == [list(frame) for frame in frames]
    assert rest == b""


def test_frames_of_every_size_are_read_from_a_socket() -> None:
    ours, theirs = socket.socketpair()
    sizes = [0, 1, 65_530, 65_536, 70_000, 3_000_000, 5]
    sender = threading.Thread(
        target=lambda: [
            ours.sendall(b"".join(sockets.pack((1, bytes(size))) for size in sizes)),
            ours.close(),
        ]
    )
    sender.start()
    assert [len(frame[1]) for frame in sockets.read(theirs)] == sizes
    sender.join()
    theirs.close()


def test_a_torn_frame_at_the_end_is_no_frame() -> None:
    for size in (100, 100_000):
        ours, theirs = socket.socketpair()
        ours.sendall(sockets.pack((1, b"whole")) + sockets.pack((2, bytes(size)))[:-1])
        ours.close()
        assert list(sockets.read(theirs)) == [[1, b"whole"]]
        theirs.close()
