"""The secrets of a container, asked of the registry when it starts. They are kept nowhere here."""

import asyncio

from tidemill import exception
from tidemill._bus.protocol import BusError, RequestFailed
from tidemill._wire import coding, subjects
from tidemill._wire.secrets import Revealed, RevealSecrets
from tidemill._wire.specs import Pool
from tidemill_worker.node import Node

PATIENCE = 20.0  # seconds that a container waits for its secrets
TIMEOUT = 5.0  # seconds for one answer
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between tries

# What another try, or the registry's operator, can mend.
_PASSING = frozenset(("service", "resource_exhausted", "internal"))


class Refused(exception.NotFoundError):
    """There are no such secrets for the pool: another try would fail as well."""


async def fetch(node: Node, pool: Pool) -> dict[str, str]:
    """Return the variables of a pool's secrets, later secrets over earlier ones.

    Raises:
        Refused: one was deleted, or is not the pool's.
        ServiceError: the registry did not answer, or could not read them, for 20 s.
    """
    if not pool.spec.secrets:
        return {}
    request = coding.encode(RevealSecrets(pool.id, pool.spec.secrets))
    subject = subjects.reveal_secrets(pool.workspace)
    deadline = asyncio.get_running_loop().time() + PATIENCE
    pause = FIRST_PAUSE
    while True:
        try:
            return coding.decode(Revealed, await node.bus.request(subject, request, timeout=TIMEOUT)).values
        except RequestFailed as error:
            problem = error.message
            if error.code not in _PASSING:
                raise Refused(problem, hint=error.hint) from None
        except BusError as error:
            problem = f"the registry does not answer: {error}"
        if asyncio.get_running_loop().time() + pause > deadline:
            raise exception.ServiceError(f"the function's secrets cannot be had: {problem}") from None
        node.log.warning("secrets cannot be had yet", pool=pool.id, error=problem)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE)
