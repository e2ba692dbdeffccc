"""The runtime layer: what runs inside every container beside the user's own packages.

A folder with `tidemill` and the few packages that it needs there, put *last* onto `sys.path` by the
container's bootstrap: the user's own versions of them win. It is made of copies, named by what is in
them, and compiled before its first use, so that no container pays for that.

Apps with web functions find a second layer behind it: FastAPI, with what it needs for forms, and what answers
for WSGI. It is made when the first of them starts here.

Scripts written for Modal also find `aiohttp` in every container, whatever the image: Modal's own client
needs it there. So does ours have it, unless the worker was installed without.
"""

import compileall
import hashlib
import importlib.util
import re
import shutil
from importlib import metadata
from pathlib import Path

from tidemill_worker import folders

PACKAGES = ("tidemill", "msgpack", "cloudpickle", "tblib")
EXPECTED = "aiohttp"  # a distribution, with what it needs
WEB = ("fastapi", "python-multipart", "a2wsgi")  # the same, for web functions
_LEFT_OUT = ("cli",)  # parts of tidemill that have no place in a container


def make(folder: Path) -> Path:
    """Return the layer's folder under `folder`, made if it is not there."""
    sources = {name: _find(name) for name in PACKAGES}
    expected = _with_needs(EXPECTED, {})
    versions = [f"{name} {distribution.version}" for name, distribution in sorted(expected.items())]
    return _make(folders.prepare(folder) / _key(sources, versions), sources, expected)


def make_web(folder: Path) -> Path:
    """Return the folder of the layer for web functions, made if it is not there."""
    expected: dict[str, metadata.Distribution] = {}
    for name in WEB:
        _with_needs(name, expected)
    versions = [f"{name} {distribution.version}" for name, distribution in sorted(expected.items())]
    return _make(folders.prepare(folder) / f"web-{_key({}, versions)}", {}, expected)


def _make(layer: Path, sources: dict[str, Path], expected: dict[str, metadata.Distribution]) -> Path:
    if not layer.is_dir():
        making = folders.making(layer)
        for name, source in sources.items():
            # Times are kept: what was compiled at its installation stays valid.
            shutil.copytree(source, making / name, ignore=_leave_out)
        for distribution in expected.values():
            _copy(distribution, making)
        compileall.compile_dir(making, quiet=2)
        folders.publish(making, layer)
        shutil.rmtree(making, ignore_errors=True)
    return layer


def _find(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the package {name} is not installed beside the worker")
    return Path(spec.submodule_search_locations[0])


def _with_needs(name: str, found: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """Return a distribution and all that it needs here, by name, as far as they are installed."""
    if name not in found:
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return found
        for requirement in found[name].requires or ():
            if "extra ==" not in requirement:
                _with_needs(re.split(r"[^\w.-]", requirement)[0], found)
    return found


def _copy(distribution: metadata.Distribution, layer: Path) -> None:
    for file in distribution.files or ():
        if ".." not in file.parts:
            target = layer / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(distribution.locate_file(file)), target)


def _key(sources: dict[str, Path], versions: list[str]) -> str:
    digest = hashlib.sha256("\n".join(versions).encode())
    for name, source in sources.items():
        for file in sorted(source.rglob("*")):
            if file.suffix in (".py", ".so", ".json", ".typed") and "__pycache__" not in file.parts:
                digest.update(f"{name}/{file.relative_to(source)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:24]


def _leave_out(folder: str, _names: list[str]) -> list[str]:
    return list(_LEFT_OUT) if Path(folder).name == "tidemill" else []
