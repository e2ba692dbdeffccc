"""Threads that wait for the loop: they see a signal that did not wake them."""

import asyncio
import concurrent.futures
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from waiting import wait_until

from tidemill import _loop
from tidemill._channel import Channel


def interrupted(waits: Callable[[], bool]) -> threading.Thread:
    """Take Ctrl-C in another thread once the main thread waits: so the kernel does not wake that one."""

    def take() -> None:
        wait_until(waits)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    thread = threading.Thread(target=take)
    thread.start()
    return thread


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop, "GLANCE", 0.05)


def test_who_waits_for_a_result_sees_a_signal_that_did_not_wake_it() -> None:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    thread = interrupted(lambda: bool(future._condition._waiters))  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        _loop.result(future)
    thread.join()


async def _new_channel() -> Channel[int]:
    return Channel()


def test_who_waits_for_items_sees_a_signal_that_did_not_wake_it() -> None:
    channel = _loop.wait(_new_channel())
    thread = interrupted(lambda: channel._taker_waits)
    with pytest.raises(KeyboardInterrupt):
        channel.take()
    thread.join()


@pytest.mark.parametrize("error", [TimeoutError("its own"), ValueError("its own"), asyncio.CancelledError()])
def test_a_result_that_fails_late_fails_as_itself(error: BaseException) -> None:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    threading.Timer(0.12, future.set_exception, [error]).start()  # after more than one look
    with pytest.raises(type(error)):
        _loop.result(future)


CLOSING = """
from tidemill import _loop
from tidemill._channel import Channel

async def close():
    Channel()
    print("closed", flush=True)

_loop.at_exit(close)
_loop.get()
"""


def test_what_closes_at_the_end_of_a_program_may_make_calls() -> None:
    ended = subprocess.run([sys.executable, "-c", CLOSING], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("closed\n", "")
