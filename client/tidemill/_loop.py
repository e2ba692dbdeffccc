"""The one event loop of the SDK, in a thread of its own, which every blocking call hands its work to.

It is made at the first call, forgotten in a forked child (a thread does not survive a fork) and closed
at exit. Because it is not the caller's loop, blocking calls also work where a loop is running already,
as in a notebook, and while the main thread of a container executes user code.
"""

import asyncio
import atexit
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

R = TypeVar("R")

GLANCE = 1.0  # seconds after which a thread that waits looks for signals
CLOSE = 3.0  # seconds that everything open has to close itself at exit
LINGER = 60.0  # seconds for which a daemon thread waits for the end of its process


class Forkable(Protocol):
    """Something that waits for the loop, and must hear that it is gone in this process."""

    def forked(self) -> None:
        """Fail whatever waits: this is a child, and the loop stayed with the parent."""


class _Thread(threading.Thread):
    """The thread of a loop of ours: it closes what is open when the process ends."""


class LoopThread:
    """A running event loop and its thread."""

    def __init__(self) -> None:
        self.loop = _new_loop()
        self._started = threading.Event()
        self._thread = _Thread(target=self._run, name="tidemill-loop", daemon=True)
        self._thread.start()
        self._started.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._started.set)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(_end_tasks())
        finally:
            self.loop.close()

    def close(self) -> None:
        """Run what `at_exit` collected, then end the loop and its thread."""
        with_time = asyncio.run_coroutine_threadsafe(_close_all(), self.loop)
        concurrent.futures.wait([with_time], CLOSE + 1.0)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSE)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class _Home:
    """What this process has of the SDK's loop."""

    lock: threading.Lock
    thread: LoopThread | None
    ends: bool
    closers: list[Callable[[], Awaitable[None]]]
    afterwards: list[Callable[[], None]]
    forkables: "weakref.WeakSet[Forkable]"

    def __init__(self) -> None:
        self.left_behind: list[object] = []  # of the parent: not to be closed here, nor freed
        self.reset()

    def reset(self) -> None:
        """Begin anew, with a new lock too: in a forked child the old one may be held by nobody."""
        self.lock = threading.Lock()
        self.thread = None
        self.ends = False  # with the process, whose other threads have ended
        self.closers = []
        self.afterwards = []
        self.forkables = weakref.WeakSet()


_home = _Home()


def get() -> asyncio.AbstractEventLoop:
    """Return the loop, started if it does not run yet."""
    thread = _home.thread or _begin()
    return thread.loop


def _begin() -> LoopThread:
    if _home.ends:
        linger()
    try:
        with _home.lock:
            thread = _home.thread = _home.thread or LoopThread()
    except RuntimeError:  # at the end of a process nothing begins any more
        if not threading.main_thread().is_alive():
            linger()
        raise
    return thread


def is_current() -> bool:
    """Return whether the present code runs on the loop."""
    return _home.thread is not None and asyncio._get_running_loop() is _home.thread.loop


def submit(coroutine: Coroutine[Any, Any, R]) -> "concurrent.futures.Future[R]":
    """Run a coroutine on the loop; the future holds its result and cancels it."""
    return asyncio.run_coroutine_threadsafe(coroutine, get())


def result(future: "concurrent.futures.Future[R]") -> R:
    """Block until a future has its result and return it, or raise what it failed with.

    A signal that comes when the main thread is just about to wait is only seen when it wakes.
    """
    try:
        while not future.done():
            with suppress(TimeoutError):
                return future.result(GLANCE)
        return future.result()
    finally:
        if _home.ends:
            linger()


def ends() -> bool:
    """Return whether the process is about to end: its threads have ended, but for daemons."""
    return _home.ends


def linger() -> None:
    """Have a daemon thread end with its process, which has no use for what it would say of its calls.

    Not the loop's own: what closes on it meanwhile may make calls.
    """
    thread = threading.current_thread()
    if thread.daemon and not isinstance(thread, _Thread):
        threading.Event().wait(LINGER)


def wait(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine on the loop and block until it is done. Ctrl-C cancels it."""
    if is_current():
        coroutine.close()
        raise RuntimeError("a blocking call on the loop of the SDK would wait for itself")
    future = submit(_contain(coroutine))
    try:
        return result(future)()
    except BaseException:
        future.cancel()
        raise


async def bridge(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine on the loop and await it from whichever loop this is."""
    if is_current():
        return await coroutine
    outcome = await asyncio.wrap_future(submit(_contain(coroutine)))
    return outcome()


async def _contain(coroutine: Coroutine[Any, Any, R]) -> Callable[[], R]:
    """Return what gives the result. An exit is raised there: raised here it would end the loop."""
    try:
        result = await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        return partial(_raise, error)
    return lambda: result


def _raise(error: BaseException) -> Any:
    raise error


def at_exit(close: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Have `close` awaited before the loop ends; return what takes that back."""
    home = _home
    home.closers.append(close)

    def undo() -> None:
        if close in home.closers:
            home.closers.remove(close)

    return undo


def after_exit(action: Callable[[], None]) -> None:
    """Run `action` after everything was closed."""
    _home.afterwards.append(action)


def on_fork(waiter: Forkable) -> None:
    """Call `waiter.forked()` in a forked child, for as long as it lives."""
    _home.forkables.add(waiter)


def leave_behind(inherited: object) -> None:
    """Keep, in a forked child, what belongs to the parent: freeing it would touch the parent's sockets."""
    _home.left_behind.append(inherited)


async def _close_all() -> None:
    closers = [close() for close in reversed(_home.closers)]
    _home.closers.clear()
    try:
        async with asyncio.timeout(CLOSE):
            await asyncio.gather(*closers, return_exceptions=True)
    except TimeoutError:
        pass  # the process ends: what could not say goodbye is found out by the other side


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def close() -> None:
    """Close everything that is open and end the loop. The next call makes a new one."""
    with _home.lock:
        thread, _home.thread = _home.thread, None
    if thread is not None:
        thread.close()
    while _home.afterwards:
        _home.afterwards.pop()()


def _forget() -> None:
    waiters = list(_home.forkables)
    if _home.thread is not None:
        _home.left_behind.append(_home.thread)
    _home.reset()
    for waiter in waiters:
        waiter.forked()


def _exit() -> None:
    """Close with the process. Where a thread still waits for something, it is a daemon."""
    _home.ends = True
    close()


atexit.register(_exit)
os.register_at_fork(after_in_child=_forget)
