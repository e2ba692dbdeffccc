"""Import nats-py without what it has for others: half of a first call's time goes into imports.

It wants aiohttp for WebSockets, the distribution's metadata for a version number, and its own JetStream
client, which it only ever touches when asked for one. The first two are hidden; the last is loaded when
somebody, the user's own code for instance, touches it.
"""

import importlib.util
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

HIDDEN = frozenset(["aiohttp", "importlib.metadata"])
LATER = "nats.js"


def import_nats() -> None:
    """Import nats-py. Does nothing more when somebody has imported it already."""
    if "nats" in sys.modules:
        return
    finder = _Lean(threading.get_ident())
    sys.meta_path.insert(0, finder)
    try:
        import nats  # noqa: F401
    finally:
        sys.meta_path.remove(finder)


class _Lean:
    """Says to one thread what is not there and what can wait; another that imports meanwhile gets all.

    `importlib.abc`, which has a class for this, costs more to import than it saves.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find nothing, and nothing further for what is hidden."""
        if threading.get_ident() != self._thread:
            return None
        if name in HIDDEN:
            raise ModuleNotFoundError("not needed here", name=name)
        if name != LATER:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec
