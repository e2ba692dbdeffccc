"""What is in a store of `buildah`'s, read from its files: a program would take a second to say it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidemill_worker import build_steps


def keys(store: Path) -> dict[str, str]:
    """Return the topmost layer of every kept step, by the step's key."""
    prefix = build_steps.image("")
    return {
        name.removeprefix(prefix): entry.get("layer", "")
        for entry in _read(store / "root" / "overlay-images" / "images.json")
        for name in entry.get("names") or ()
        if name.startswith(prefix)
    }


def directories(store: Path, key: str) -> tuple[Path, ...]:
    """Return the directories of a step's image, topmost first."""
    return tuple(store / "root" / "overlay" / layer / "diff" for layer in _chain(store, keys(store)[key]))


def size(store: Path, key: str) -> int:
    """Return the bytes of the layers of a step's image above its base."""
    sizes = {entry["id"]: entry.get("diff-size", 0) for entry in _layers(store)}
    return sum(sizes[layer] for layer in list(_chain(store, keys(store)[key]))[:-1])


def _chain(store: Path, layer: str) -> Iterator[str]:
    parents = {entry["id"]: entry.get("parent", "") for entry in _layers(store)}
    while layer:
        yield layer
        layer = parents[layer]


def _layers(store: Path) -> list[dict[str, Any]]:
    return _read(store / "root" / "overlay-layers" / "layers.json")


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    return found
