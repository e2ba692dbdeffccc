"""Waiting for what can be observed, with a bound. Here alone tests let time pass: see `test_waiting.py`."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 60.0  # seconds: a machine may be busy with other things
PAUSE = 0.005


def wait_until(condition: Callable[[], Any], timeout: float = PATIENCE, what: str = "") -> Any:
    """Return what a condition returns as soon as that is true."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain {what}"
        time.sleep(PAUSE)
    return result


async def until(condition: Callable[[], Any], timeout: float = PATIENCE, what: str = "") -> Any:
    """Do the same on an event loop, where the condition may be a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await asyncio.wait_for(result, max(0.0, deadline - time.monotonic()))
        if result:
            return result
        assert time.monotonic() < deadline, f"waited {timeout} s in vain {what}"
        await asyncio.sleep(PAUSE)
