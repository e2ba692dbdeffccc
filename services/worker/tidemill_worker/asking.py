"""What a worker asks of the registry when a container starts, with patience for one that is away."""

import asyncio
from typing import TypeVar

from tidemill import exception
from tidemill._bus.protocol import BusError, RequestFailed
from tidemill._wire import coding
from tidemill_worker.node import Node

PATIENCE = 20.0  # seconds that a container waits for an answer
TIMEOUT = 5.0  # seconds for one try
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between tries

# What another try, or the registry's operator, can mend.
_PASSING = frozenset(("service", "resource_exhausted", "internal"))

T = TypeVar("T")


async def ask(node: Node, subject: str, message: object, kind: type[T], what: str) -> T:
    """Return the registry's answer; `what` is what is asked for, such as "the function's secrets".

    Raises:
        RequestFailed: it refuses, and would do so again.
        ServiceError: it did not answer, or could not, for 20 s.
    """
    request = coding.encode(message)
    deadline = asyncio.get_running_loop().time() + PATIENCE
    pause = FIRST_PAUSE
    while True:
        try:
            return coding.decode(kind, await node.bus.request(subject, request, timeout=TIMEOUT))
        except RequestFailed as error:
            problem = error.message
            if error.code not in _PASSING:
                raise
        except BusError as error:
            problem = f"the registry does not answer: {error}"
        if asyncio.get_running_loop().time() + pause > deadline:
            raise exception.ServiceError(f"{what} cannot be had: {problem}") from None
        message = f"{what} cannot be had yet"
        node.log.warning(message, error=problem)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE)
