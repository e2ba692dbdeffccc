"""Outputs are put in order, whatever order they come in."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill import _loop
from tidemill._channel import Channel
from tidemill._outcome import End
from tidemill._results import Results
from tidemill._wire.messages import Format, Status


@pytest.fixture(autouse=True, scope="module")
def closed() -> Iterator[None]:
    yield
    _loop.close()


def take(channel: Channel[End]) -> list[bytes]:
    """Return what is in a channel that has ended."""
    taken: list[bytes] = []
    while ends := channel.take():
        taken += [end.data for end in ends if hasattr(end, "data")]
    return taken


def results(*, ordered: bool) -> tuple[Results, Channel[End]]:
    channel: Channel[End] = Channel()
    caller = cast("Any", None)  # only payloads in the object store ask for it
    return Results(caller, channel, ordered=ordered, restricted=False), channel


arrivals = st.integers(0, 60).flatmap(lambda n: st.permutations(range(n)))


@given(arrivals, st.integers(1, 7))
@settings(deadline=None)
def test_ordered_outputs_come_by_index(order: list[int], message: int) -> None:
    made, channel = results(ordered=True)
    for number, index in enumerate(order):
        made.add(index, Status.SUCCESS, Format.MSGPACK, b"%d" % index)
        if number % message == 0:
            made.flush()
    made.flush()
    channel.end()
    assert take(channel) == [b"%d" % index for index in range(len(order))]
    assert made.delivered
    assert made.waiting == 0


@given(arrivals)
@settings(deadline=None)
def test_unordered_outputs_come_as_they_arrive(order: list[int]) -> None:
    made, channel = results(ordered=False)
    for index in order:
        made.add(index, Status.SUCCESS, Format.MSGPACK, b"%d" % index)
    made.flush()
    channel.end()
    assert take(channel) == [b"%d" % index for index in order]


@given(arrivals.filter(lambda order: len(order) > 1), st.data())
@settings(deadline=None)
def test_a_missing_output_holds_back_those_behind_it(order: list[int], data: st.DataObject) -> None:
    missing = data.draw(st.sampled_from(order))
    made, channel = results(ordered=True)
    for index in order:
        if index != missing:
            made.add(index, Status.SUCCESS, Format.MSGPACK, b"%d" % index)
    made.flush()
    assert made.next == missing
    assert made.gap == (missing < len(order) - 1)
    assert all(made.has(index) == (index != missing) for index in order)
    channel.end()
    assert take(channel) == [b"%d" % index for index in range(missing)]


def test_a_channel_ends_with_its_error_after_its_items() -> None:
    channel: Channel[int] = Channel()
    channel.put([1, 2])
    channel.end(ValueError("broken"))
    channel.end(KeyError("later"))
    assert channel.take() == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        channel.take()
    assert channel.take() == []
