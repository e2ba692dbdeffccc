"""Items from the loop to the one who iterates."""

from collections import deque

import pytest

from tidemill._channel import Channel


class FilledWhenLookedAt(deque[int]):
    """Items of which the producer puts the last, and ends, in the moment after the taker saw none."""

    def __init__(self, channel: Channel[int]) -> None:
        super().__init__()
        self._channel = channel
        self._looked = False

    def __bool__(self) -> bool:
        there_are = len(self) > 0
        if not self._looked:
            self._looked = True
            self._channel.put([1, 2])
            self._channel.end()
        return there_are


def test_what_is_put_while_the_taker_looks_is_not_lost_to_the_end() -> None:
    channel: Channel[int] = Channel()
    channel._items = FilledWhenLookedAt(channel)
    assert channel.take() == [1, 2]
    assert channel.take() == []


async def test_the_same_for_one_who_awaits() -> None:
    channel: Channel[int] = Channel()
    channel._items = FilledWhenLookedAt(channel)
    assert await channel.take_async() == [1, 2]
    assert await channel.take_async() == []


def test_an_error_comes_after_the_items_before_it() -> None:
    channel: Channel[int] = Channel()
    channel.put([1])
    channel.end(ValueError("broken"))
    assert channel.take() == [1]
    with pytest.raises(ValueError, match="broken"):
        channel.take()
