"""The two halves of a duplex stream as plain state: numbers and credit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill._wire.duplex import FURTHEST, OPENING, OVERHEAD, Frame, Gap, Kind, Receiving, Sending

WINDOW = 256 * 1024


def said(count: int) -> list[Frame]:
    """Return what one side says: pieces, control frames and its end."""
    half = Sending()
    frames = [
        half.control("resize", number) if number % 5 == 4 else half.piece(1, bytes([number % 256]))
        for number in range(count)
    ]
    return [*frames, half.end("done")]


@given(st.lists(st.integers(0, 20), max_size=60))
def test_whatever_is_lost_doubled_or_reordered_what_is_accepted_is_the_beginning(order: list[int]) -> None:
    frames, half = said(20), Receiving(WINDOW)
    accepted = []
    for position in order:
        try:
            if half.accept(frames[position]):
                accepted.append(frames[position])
        except Gap:
            break
    assert accepted == frames[: len(accepted)]
    assert half.ended == (len(accepted) == len(frames))


def test_a_missing_last_frame_is_found_out_by_the_number_that_comes_next() -> None:
    frames, half = said(2), Receiving(WINDOW)
    half.accept(frames[0])
    half.check(1)
    with pytest.raises(Gap, match="frame 1"):
        half.check(2)


def test_nothing_may_follow_the_end() -> None:
    half = Receiving(WINDOW)
    half.accept((Kind.END, 0, None))
    with pytest.raises(Gap, match="after its end"):
        half.accept((Kind.PIECE, 1, 0, b"more"))


@given(st.lists(st.integers(0, 128 * 1024), max_size=40), st.integers(OPENING, 1 << 20))
def test_a_reader_that_takes_nothing_never_holds_more_than_its_window_and_a_piece(
    sizes: list[int], window: int
) -> None:
    sender, reader = Sending(), Receiving(window)
    if (limit := reader.grant()) is not None:
        sender.grant(limit)
    held = 0
    for size in sizes:
        if not sender.is_open:
            break
        reader.accept(sender.piece(0, bytes(size)))
        held += size + OVERHEAD
    assert held <= window + 128 * 1024 + OVERHEAD


@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=60))
def test_a_reader_that_takes_everything_never_stops_its_sender(sizes: list[int]) -> None:
    sender, reader = Sending(), Receiving(WINDOW)
    for size in sizes:
        assert sender.is_open
        reader.accept(sender.piece(0, bytes(size)))
        reader.take(size + OVERHEAD)
        if (limit := reader.grant()) is not None:
            sender.grant(limit)


def test_credit_that_comes_late_or_twice_takes_nothing_back() -> None:
    sender = Sending()
    for limit in (500_000, 100_000, 500_000):
        sender.grant(limit)
    assert sender.limit == 500_000


def test_credit_without_end_is_not_believed() -> None:
    sender = Sending()
    sender.grant(1 << 60)
    assert sender.limit == FURTHEST


def test_a_piece_beyond_the_credit_is_refused() -> None:
    half = Receiving(WINDOW)
    half.accept((Kind.PIECE, 0, 0, bytes(OPENING)))
    with pytest.raises(Gap, match="beyond its credit"):
        half.accept((Kind.PIECE, 1, 0, b"x"))
