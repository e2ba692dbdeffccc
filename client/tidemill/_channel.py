"""Items from the loop's thread to the one who iterates: a blocking thread, or another event loop.

Everything that arrived while the taker was busy is taken in one go, so that a fast stream costs a
hand-over per batch and not per item. The producer bounds itself: `room` waits while too much is there.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from tidemill import _loop, exception

T = TypeVar("T")

BATCH = 1_024  # items taken at once: what is taken counts as consumed


class Channel(Generic[T]):
    """A queue with a producer on the SDK's loop and one taker anywhere else."""

    def __init__(self, home: asyncio.AbstractEventLoop | None = None) -> None:
        """Make it for a taker on the event loop `home`, or for one that blocks its thread."""
        self._loop = _loop.get()
        self._items: deque[T] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._taker_waits = False
        self._room: asyncio.Event | None = None
        self.on_taken: Callable[[], None] | None = None  # called in the taker's place after each take
        self.taken = 0  # items handed out so far
        self._home = home
        self._thread_event = threading.Event()
        self._loop_event = asyncio.Event()
        _loop.on_fork(self)

    # --- the producer, on the loop

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Iterable[T]) -> None:
        """Add items. Never blocks."""
        self._items.extend(items)
        self._ring()

    def end(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes, because of `error` if there is one. The first end holds."""
        if not self._ended:
            self._error = error
            self._ended = True
            self._ring()

    async def room(self, limit: int) -> None:
        """Wait until fewer than `limit` items wait to be taken."""
        while len(self._items) >= limit and not self._ended:
            self._room = asyncio.Event()
            if len(self._items) >= limit:
                await self._room.wait()

    def _ring(self) -> None:
        if self._taker_waits:
            self._taker_waits = False
            if self._home is None:
                self._thread_event.set()
                return
            try:
                self._home.call_soon_threadsafe(self._loop_event.set)
            except RuntimeError:
                self._ended = True  # the taker's loop is closed: nobody takes any more

    # --- the taker

    def take(self) -> list[T]:
        """Block until there are items and return them; an empty list is the end. Raises its error."""
        while not self._is_ready():
            self._thread_event.clear()
            self._taker_waits = True
            if not self._is_ready():
                self._thread_event.wait(_loop.GLANCE)  # see `_loop.result`
        if _loop.ends():
            _loop.linger()
        return self._pop() if self._items else self._finish()

    async def take_async(self) -> list[T]:
        """Do as `take`, on the event loop that this channel was made for."""
        while not self._is_ready():
            self._loop_event.clear()
            self._taker_waits = True
            if not self._is_ready():
                await self._loop_event.wait()
        return self._pop() if self._items else self._finish()

    def _is_ready(self) -> bool:
        """Return whether there are items, or nothing more comes."""
        return bool(self._items) or self._ended

    def _pop(self) -> list[T]:
        pop = self._items.popleft
        items = [pop() for _ in range(min(BATCH, len(self._items)))]
        self.taken += len(items)
        room, self._room = self._room, None
        if room is not None:
            self._loop.call_soon_threadsafe(room.set)
        if self.on_taken is not None:
            self.on_taken()
        return items

    def _finish(self) -> list[T]:
        error, self._error = self._error, None
        if error is not None:
            raise error
        return []

    def forked(self) -> None:
        """End: the loop that fed this channel stayed in the parent."""
        self._ended = True
        self._error = exception.ExecutionError("this process was forked while the call was running")
