"""The inputs of a map: read from the user's iterables and encoded, as far ahead as there is room.

Plain iterables are read in a thread of their own, so that a slow one blocks nothing. Async ones are read
where they belong: on the event loop of the caller, or, when the caller blocks, on a loop in that thread.
"""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from functools import partial
from typing import Any

from tidemill import _loop, exception
from tidemill._wire.payload import encode_call

AHEAD = 4_096  # inputs that are read and not sent
AHEAD_BYTES = 32 << 20
NEVER = 1 << 62

Arguments = tuple[Any, ...]
Iterables = tuple[Iterable[Any] | AsyncIterable[Any], ...]

_END = object()


class Feed:
    """Encoded inputs, filled by one reader and emptied on the SDK's loop."""

    def __init__(self, iterables: Iterables, kwargs: dict[str, Any], *, star: bool) -> None:
        """Make it. With `star` the one iterable yields tuples of arguments."""
        self.items: deque[tuple[int, bytes]] = deque()
        self.wanted = 1  # inputs that the loop waits for; it is woken when so many are there
        self.exhausted = False
        self.error: BaseException | None = None
        self._iterables = iterables
        self._kwargs = kwargs
        self._star = star
        self._loop = _loop.get()
        self._on_ready: Callable[[], None] = _nothing
        self._notified = True  # until `attach`
        self._fed = self._drained = 0  # bytes; one counter for each side
        self._stopped = False
        self._wake_reader: Callable[[], object] = _nothing
        self._reader_waits = False
        self._task: asyncio.Task[None] | None = None

    # --- started by the caller

    def start(self, home: asyncio.AbstractEventLoop | None) -> None:
        """Begin to read. Async iterables are read on the caller's event loop `home`, if it has one."""
        is_async = any(isinstance(iterable, AsyncIterable) for iterable in self._iterables)
        if is_async and home is not None:
            self._task = home.create_task(self._read_async(), name="read the inputs of a map")
        else:
            target = partial(asyncio.run, self._read_async()) if is_async else self._read
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(target,), name="tidemill-inputs", daemon=True).start()

    # --- the reader

    def _read(self) -> None:
        room = threading.Event()
        self._wake_reader = room.set
        items, kwargs, star = self.items, self._kwargs, self._star
        source: Iterator[Any]
        try:
            source = iter(self._iterables[0]) if star else zip(*self._iterables, strict=False)  # type: ignore[arg-type]
            for arguments in source:
                item = encode_call(tuple(arguments) if star else arguments, kwargs)
                if self._stopped:
                    return
                items.append(item)
                self._fed += len(item[1])
                if len(items) >= self.wanted:
                    self._notify()
                while self._is_full():
                    room.clear()
                    self._reader_waits = True
                    if self._is_full():
                        room.wait()
        except BaseException as error:  # whatever it is, it is the caller's
            self.error = error
        finally:
            self.exhausted = True
            self._notify()

    async def _read_async(self) -> None:
        home, room = asyncio.get_running_loop(), asyncio.Event()
        self._wake_reader = partial(home.call_soon_threadsafe, room.set)
        source = _in_step(self._iterables)
        try:
            async for arguments in source:
                item = encode_call(tuple(arguments[0]) if self._star else arguments, self._kwargs)
                if self._stopped:
                    return
                self.items.append(item)
                self._fed += len(item[1])
                if len(self.items) >= self.wanted:
                    self._notify()
                while self._is_full():
                    room.clear()
                    self._reader_waits = True
                    if self._is_full():
                        await room.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.error = error
        finally:
            await source.aclose()
            self.exhausted = True
            self._notify()

    def _is_full(self) -> bool:
        ahead = len(self.items) >= AHEAD or self._fed - self._drained >= AHEAD_BYTES
        return ahead and not self._stopped

    def _notify(self) -> None:
        if not self._notified:
            self._notified = True
            try:
                self._loop.call_soon_threadsafe(self._ready)
            except RuntimeError:  # the loop is closed: nobody wants inputs any more
                self._stopped = True

    # --- the loop

    def attach(self, on_ready: Callable[[], None]) -> None:
        """Have `on_ready` called on the loop when inputs are there that it waits for, or the end."""
        self._on_ready = on_ready
        self._ready()

    def _ready(self) -> None:
        self._notified = False
        self._on_ready()

    def pop(self) -> tuple[int, bytes]:
        """Take the next input."""
        item = self.items.popleft()
        self._drained += len(item[1])
        return item

    def want(self, inputs: int) -> bool:
        """Ask to be woken at so many inputs; return whether that is already the case."""
        self.wanted = inputs
        if self._reader_waits and not self._is_full():
            self._reader_waits = False
            self._wake_reader()
        return len(self.items) >= inputs

    def stop(self) -> None:
        """Read no further. A reader inside the user's iterator ends with its next item."""
        self._stopped = True
        try:
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
            elif self._reader_waits:
                self._wake_reader()
        except RuntimeError:
            pass  # the reader's loop is closed, and the reader with it


def _nothing() -> None:
    pass


async def _in_step(iterables: Iterables) -> AsyncGenerator[Arguments, None]:
    """Yield one item of each iterable at a time, until the first one ends."""
    steps = [_step(iterable) for iterable in iterables]
    while True:
        arguments = [await step() for step in steps]
        if any(argument is _END for argument in arguments):
            return
        yield tuple(arguments)


def _step(iterable: "Iterable[Any] | AsyncIterable[Any]") -> "Callable[[], Any]":
    if isinstance(iterable, AsyncIterable):
        async_iterator = aiter(iterable)
        return lambda: anext(async_iterator, _END)
    iterator = iter(iterable)
    return lambda: asyncio.to_thread(next, iterator, _END)


def check(iterables: Iterables) -> None:
    """Refuse what cannot be iterated, before anything is sent."""
    for iterable in iterables:
        if not isinstance(iterable, Iterable | AsyncIterable) and not hasattr(iterable, "__getitem__"):
            raise exception.InvalidError(
                f"a map needs iterables of inputs, not a {type(iterable).__name__}",
                hint="pass constant arguments in `kwargs`",
            )
