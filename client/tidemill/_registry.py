"""Asking the registry."""

from typing import TYPE_CHECKING, TypeVar

from tidemill import exception

if TYPE_CHECKING:
    from tidemill._client import Client

A = TypeVar("A")

TIMEOUT = 30.0  # seconds
TRIES = 3


async def ask(
    client: "Client", verb: str, message: object, answer: type[A], *, timeout: float = TIMEOUT
) -> A:
    """Return the registry's answer, or raise the error that it gave."""
    from tidemill._wire import subjects

    return await client.request(subjects.registry(verb), message, answer, timeout=timeout)


async def ask_again(
    client: "Client", verb: str, message: object, answer: type[A], *, timeout: float = TIMEOUT
) -> tuple[A, int]:
    """Do as `ask`, for a request that may come twice: again while its answer is lost, for a bounded time.

    Returns the answer and how many tries came before the one that was answered.
    """
    for lost in range(TRIES):
        try:
            return await ask(client, verb, message, answer, timeout=timeout), lost
        except (exception.ServiceError, exception.ConnectionError):
            if lost == TRIES - 1:
                raise
    raise AssertionError
