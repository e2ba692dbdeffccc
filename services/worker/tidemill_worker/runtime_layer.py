"""The runtime layer: what runs inside every container beside the user's own packages.

A folder with `tidemill` and the few packages that it needs there, put *last* onto `sys.path` by the
container's bootstrap: the user's own versions of them win. It is made of copies, named by what is in
them, and compiled before its first use, so that no container pays for that.
"""

import hashlib
import importlib.util
import os
import shutil
from contextlib import suppress
from pathlib import Path

PACKAGES = ("tidemill", "msgpack", "cloudpickle", "tblib")
_LEFT_OUT = ("cli",)  # parts of tidemill that have no place in a container


def make(folder: Path) -> Path:
    """Return the layer's folder under `folder`, made if it is not there."""
    sources = {name: _find(name) for name in PACKAGES}
    layer = folder / _key(sources)
    if not layer.is_dir():
        making = layer.with_name(f".{layer.name}.{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        for name, source in sources.items():
            # Times are kept: what was compiled at its installation stays valid.
            shutil.copytree(source, making / name, ignore=_ignored(source))
        with suppress(OSError):  # another worker was faster
            making.rename(layer)
        shutil.rmtree(making, ignore_errors=True)
    return layer


def _find(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the package {name} is not installed beside the worker")
    return Path(spec.submodule_search_locations[0])


def _key(sources: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, source in sources.items():
        for file in sorted(source.rglob("*")):
            if file.suffix in (".py", ".so", ".json", ".typed") and "__pycache__" not in file.parts:
                digest.update(f"{name}/{file.relative_to(source)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:24]


def _ignored(source: Path):  # type: ignore[no-untyped-def]
    def ignore(folder: str, _names: list[str]) -> list[str]:
        return list(_LEFT_OUT) if Path(folder) == source and source.name == "tidemill" else []

    return ignore
