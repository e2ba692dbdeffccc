"""Import nats-py without aiohttp, which it wants for WebSockets only: 0.15 s less at every start."""

import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


def import_nats() -> None:
    """Import nats-py. Does nothing more when somebody has it, or aiohttp, already."""
    finder = _WithoutAiohttp(threading.get_ident())
    sys.meta_path.insert(0, finder)
    try:
        import nats  # noqa: F401
    finally:
        sys.meta_path.remove(finder)


class _WithoutAiohttp(MetaPathFinder):
    """Hides aiohttp from one thread; another that imports it meanwhile gets it."""

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG002
        """Find nothing, and nothing further for aiohttp."""
        if name == "aiohttp" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("not needed here", name=name)
