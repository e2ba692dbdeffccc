"""The duplex stream: bytes both ways between two programs, whatever lies between them.

    PIECE 0, CONTROL 1, PIECE 2, ... END n ──>      what one side says, numbered
    <── CREDIT up to so many bytes in all           how far the other lets it go

Both sides do both. A number that is missing ends the whole stream with an error, so that something short
never looks complete; a number that was seen before is dropped. Credit is cumulative, hence a repeat or a
loss of it does no harm; it is given when the application has *taken* pieces, so that a slow reader slows
the writer down and nothing piles up in between. Each side ends its own half, with a last word.

Frames are tuples, packed as MessagePack arrays where they cross a bus. Here are the two halves as plain
state, without clock, loop or transport: `tidemill._duplex` drives them on an event loop, a container's
init in its poll loop.
"""

from enum import IntEnum
from typing import Any, NamedTuple

OPENING = 64 * 1024  # bytes of credit that both sides have before any was given
PIECE = 128 * 1024  # bytes of one piece on the bus
PIECE_TO_CONTAINER = 64 * 1024  # bytes of one piece towards the processes of a container
OVERHEAD = 32  # bytes that a piece costs beside its own, for whoever keeps it
FURTHEST = 16 << 20  # bytes ahead for which credit is believed: what is between lies in somebody's memory

Frame = tuple[Any, ...]


class Kind(IntEnum):
    """The first element of a frame; the rest is said beside it."""

    PIECE = 1  # number, tag, bytes: some content; tags keep several runs of it apart
    CONTROL = 2  # number, name, value: something to act on at once, ahead of pieces that wait
    END = 3  # number, last word: nothing more comes from this side but control frames
    CREDIT = 4  # bytes that the other side may send in all, number that this side uses next
    ABORT = 5  # code, message: the whole stream is over; the code is one of `tidemill._wire.errors`


class Content(NamedTuple):
    """A piece as the application gets it."""

    tag: int
    data: bytes

    @property
    def cost(self) -> int:
        """The credit that it takes."""
        return len(self.data) + OVERHEAD


class Gap(Exception):
    """A frame is missing, or the other side sent what it may not: the stream cannot go on."""


class Sending:
    """The half that this side speaks on: numbers given out, credit used up."""

    __slots__ = ("ended", "limit", "next", "used")

    def __init__(self) -> None:
        self.next = 0
        self.used = 0
        self.limit = OPENING
        self.ended = False

    @property
    def is_open(self) -> bool:
        """Whether the next piece may go. One piece alone may exceed the credit."""
        return self.used < self.limit

    def piece(self, tag: int, data: bytes) -> Frame:
        """Return the next piece."""
        self.used += len(data) + OVERHEAD
        return Kind.PIECE, self._number(), tag, data

    def control(self, name: str, value: Any) -> Frame:
        """Return a control frame. It needs no credit: it is never kept."""
        return Kind.CONTROL, self._number(), name, value

    def end(self, word: Any) -> Frame:
        """Return the last frame of this half."""
        self.ended = True
        return Kind.END, self._number(), word

    def grant(self, limit: int) -> None:
        """Take credit in; what is older than what is known changes nothing."""
        self.limit = max(self.limit, min(limit, self.used + FURTHEST))

    def _number(self) -> int:
        number = self.next
        self.next = number + 1
        return number


class Receiving:
    """The half that this side listens to: numbers seen, credit given.

    `window` is how many bytes the other side may be ahead of what was taken.
    """

    __slots__ = ("ended", "limit", "next", "received", "taken", "window")

    def __init__(self, window: int) -> None:
        self.next = 0
        self.received = 0
        self.taken = 0
        self.limit = OPENING
        self.window = window
        self.ended = False

    def accept(self, frame: Any) -> bool:
        """Count a PIECE, CONTROL or END; return False for one seen before.

        Raises:
            Gap: a frame before it is missing, or it goes beyond the credit.
        """
        number = frame[1]
        if number < self.next:
            return False
        if number > self.next:
            raise Gap(f"frame {self.next} of the stream is missing")
        if self.ended and frame[0] != Kind.CONTROL:
            raise Gap("the stream goes on after its end")
        self.next = number + 1
        if frame[0] == Kind.PIECE:
            if self.received >= self.limit:
                raise Gap("the stream goes on beyond its credit")
            self.received += len(frame[3]) + OVERHEAD
        elif frame[0] == Kind.END:
            self.ended = True
        return True

    def check(self, following: int) -> None:
        """Compare with the number that the other side uses next; `Gap` if something is missing."""
        if following > self.next:
            raise Gap(f"frame {self.next} of the stream is missing")

    def take(self, cost: int) -> None:
        """Note that the application has taken a piece."""
        self.taken += cost

    def grant(self) -> int | None:
        """Return a new limit once it is worth a frame, else None."""
        limit = self.taken + self.window
        if self.ended or limit - self.limit < self.window // 4:
            return None
        self.limit = limit
        return limit
