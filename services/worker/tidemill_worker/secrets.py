"""The secrets of a container, asked of the registry when it starts. They are kept nowhere here."""

from collections.abc import Sequence

from tidemill import exception
from tidemill._bus.protocol import RequestFailed
from tidemill._wire import subjects
from tidemill._wire.secrets import Revealed, RevealSecrets
from tidemill._wire.specs import Pool
from tidemill_worker.asking import ask
from tidemill_worker.node import Node


class Refused(exception.NotFoundError):
    """There are no such secrets for the pool: another try would fail as well."""


async def fetch(node: Node, pool: Pool, secrets: Sequence[str]) -> dict[str, str]:
    """Return the variables of some of a pool's secrets, later secrets over earlier ones.

    Raises:
        Refused: one was deleted, or is not the pool's.
        ServiceError: the registry did not answer, or could not read them, for 20 s.
    """
    if not secrets:
        return {}
    request = RevealSecrets(pool.id, tuple(secrets))
    subject = subjects.reveal_secrets(pool.workspace)
    try:
        return (await ask(node, subject, request, Revealed, "secrets")).values
    except RequestFailed as error:
        raise Refused(error.message, hint=error.hint) from None
