"""Keys seen lately, as many as fit."""

from collections.abc import Hashable


class Recent:
    """The last keys that were added, up to a number; the oldest are forgotten first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: dict[Hashable, None] = {}

    def add(self, key: Hashable) -> None:
        """Remember a key."""
        self._keys[key] = None
        if len(self._keys) > self._size:
            del self._keys[next(iter(self._keys))]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._keys
