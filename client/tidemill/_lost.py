"""Calls whose outputs will never come: they were lost, or have expired before this process could read them.

That is how it looks after an outage that was longer than replies are kept: nothing of the call is queued,
running or waiting for its next try, and no reply is stored either. A caller must not wait for ever then.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from tidemill import exception
from tidemill._attached import Attached
from tidemill._bus.protocol import BusError
from tidemill._replies import Replies

SILENT_MAX = 60.0  # seconds without output after which the queues are asked
AT_ONCE = 100  # calls of which they are asked in a minute

_log = logging.getLogger("tidemill")


def silent_since(call: Attached, now: float) -> float:
    """Return since when (monotonic) a call waits for its oldest input."""
    oldest = call.oldest()
    return oldest[1] if oldest is not None else now


class Lost:
    """Looks for such calls. One counts when it is found twice, a minute apart: an input on its way from
    one stream to another may be seen in neither."""

    def __init__(self, is_queued: Callable[[Attached], Awaitable[bool]], replies: Replies) -> None:
        """Make it; `is_queued` asks the scheduler, who may look into the queues, about one call."""
        self._is_queued = is_queued
        self._replies = replies
        self._doubtful: set[str] = set()

    async def give_up(self, calls: Mapping[str, Attached]) -> None:
        """Fail the calls that are lost."""
        silent = [call for call in calls.values() if _is_silent(call)][:AT_ONCE]
        try:
            queued = await asyncio.gather(*map(self._is_queued, silent))
            gone = [call for call, is_there in zip(silent, queued, strict=True) if not is_there]
            await self._replies.read()
        except BusError as error:
            _log.debug("cannot look for lost calls now: %s", error)
            return
        for call in gone:
            if call.id in self._doubtful and call.id in calls and _is_silent(call):
                call.fail(exception.OutputExpiredError(f"the output of {call.id} was lost or has expired"))
        self._doubtful = {call.id for call in gone}


def _is_silent(call: Attached) -> bool:
    now = time.monotonic()
    return now - silent_since(call, now) >= SILENT_MAX
