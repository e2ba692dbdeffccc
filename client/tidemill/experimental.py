"""What may change: control over the inputs of the container that this code runs in."""

from tidemill import _runtime
from tidemill.exception import InvalidError

__all__ = ["get_local_input_concurrency", "set_local_input_concurrency", "stop_fetching_inputs"]


def stop_fetching_inputs() -> None:
    """Have this container take no more inputs: it ends, in order, when those that it has are done.

    Raises:
        InvalidError: this is no container.
    """
    _container("stop_fetching_inputs").limit(0)


def get_local_input_concurrency() -> int:
    """Return how many inputs this container may run at once.

    Raises:
        InvalidError: this is no container.
    """
    return _container("get_local_input_concurrency").slots


def set_local_input_concurrency(concurrency: int) -> None:
    """Let this container run so many inputs at once from now on, at most as many as `@concurrent` says.

    Those that run already are not interrupted.

    Raises:
        InvalidError: this is no container, or not a number above 0.
    """
    container = _container("set_local_input_concurrency")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidError(f"concurrency has to be a whole number above 0, not {concurrency!r}")
    container.slots = min(concurrency, container.most_slots)
    container.limit(container.slots)


def _container(name: str) -> _runtime.Container:
    if _runtime.container is None:
        raise InvalidError(f"{name}() is for code that runs in a container")
    return _runtime.container
