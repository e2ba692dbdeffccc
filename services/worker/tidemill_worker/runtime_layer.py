"""The runtime layer: what runs inside every container beside the user's own packages.

A folder with `tidemill` and the few packages that it needs there, put *last* onto `sys.path` by the
container's bootstrap: the user's own versions of them win. It is made of copies, named by what is in
them, and compiled before its first use, so that no container pays for that.
"""

import compileall
import hashlib
import importlib.util
import shutil
from pathlib import Path

from tidemill_worker import folders

PACKAGES = ("tidemill", "msgpack", "cloudpickle", "tblib")
_LEFT_OUT = ("cli",)  # parts of tidemill that have no place in a container


def make(folder: Path) -> Path:
    """Return the layer's folder under `folder`, made if it is not there."""
    sources = {name: _find(name) for name in PACKAGES}
    layer = folders.prepare(folder) / _key(sources)
    if not layer.is_dir():
        making = folders.making(layer)
        for name, source in sources.items():
            # Times are kept: what was compiled at its installation stays valid.
            shutil.copytree(source, making / name, ignore=_leave_out)
        compileall.compile_dir(making, quiet=2)
        folders.publish(making, layer)
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


def _leave_out(folder: str, _names: list[str]) -> list[str]:
    return list(_LEFT_OUT) if Path(folder).name == "tidemill" else []
