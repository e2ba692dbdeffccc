"""Which code a function takes with it, and how: bundles of `.py` files, or the pickled function itself.

A script takes its one file, a module of a package the whole top-level package. Other local modules go
along only when they are named by `Image.add_local_python_source`. Virtual environments, caches and hidden
folders never do. A bundle is an uncompressed tar with nothing in it but names and contents, so that the
same code has the same SHA-256 wherever and whenever it is packed.
"""

import functools
import hashlib
import importlib.util
import io
import os
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tidemill._dataclass import dataclass
from tidemill._image_parts import LocalModule
from tidemill._wire.specs import Source
from tidemill.exception import InvalidError, ModuleNotMountable, SerializationError
from tidemill.file_pattern_matcher import predicate

WARN_SERIALIZED = 256 * 1024  # bytes
MAX_SERIALIZED = 16 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a function is defined: the module a container imports and, if it is one of a package, which.

    `roots` are what the module needs: its file, or the folders of its top-level package.
    """

    module: str
    roots: tuple[Path, ...]
    is_package: bool


@dataclass(frozen=True, slots=True)
class Packed:
    """What one function brings: its source, and the blobs (by SHA-256) that must be stored for it."""

    source: Source
    blobs: dict[str, bytes]


# --- finding


def has_file(function: Callable[..., Any]) -> bool:
    """Return whether a function is in a file; those of notebooks and interactive sessions are not."""
    return getattr(sys.modules.get(function.__module__), "__file__", None) is not None


def locate(function: Callable[..., Any]) -> Place:
    """Return where a function is defined.

    Raises:
        InvalidError: it is not in a `.py` file that a container could import.
    """
    module = sys.modules.get(function.__module__)
    if module is not None and (package := getattr(module, "__package__", None)):
        spec = getattr(module, "__spec__", None)
        name = spec.name if spec is not None else module.__name__
        return Place(name, _package_roots(package.partition(".")[0]), is_package=True)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not Path(file).is_file():
        raise InvalidError(
            f"the function {function.__qualname__!r} is not in a file that could be sent",
            hint="give @app.function() serialized=True",
        )
    path = Path(file).absolute()
    if path.suffix != ".py":
        raise InvalidError(f"{path} is not a .py file")
    if not path.stem.isidentifier():
        raise InvalidError(f"{path.name} cannot be imported: {path.stem!r} is not a module's name")
    name = path.stem if module.__name__ == "__main__" else module.__name__
    return Place(name, (path,), is_package=False)


def _package_roots(package: str) -> tuple[Path, ...]:
    paths = list(getattr(sys.modules.get(package), "__path__", ()))
    if not paths:
        spec = importlib.util.find_spec(package)
        paths = list(spec.submodule_search_locations or ()) if spec else []
    roots = tuple(Path(path).absolute() for path in paths if Path(path).is_dir())
    if not roots:
        raise ModuleNotMountable(f"the package {package!r} is not a folder of files")
    return roots


def _locate_named(name: str) -> tuple[tuple[Path, ...], bool]:
    """Return the files of a module named by `add_local_python_source`, and whether it is a package."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ModuleNotMountable(
            f"no module {name!r} can be imported here", hint="add_local_python_source takes names of modules"
        )
    if spec.submodule_search_locations is not None:
        return tuple(Path(path).absolute() for path in spec.submodule_search_locations), True
    if not spec.has_location or not spec.origin or not spec.origin.endswith(".py"):
        raise ModuleNotMountable(f"the module {name!r} is not a .py file")
    return (Path(spec.origin).absolute(),), False


# --- collecting


Ignored = Callable[[Path], bool]


def _nothing(_path: Path) -> bool:
    return False


def python_files(root: Path, ignored: Ignored = _nothing) -> Iterator[Path]:
    """Yield the `.py` files below a folder, without environments, caches and hidden ones, sorted."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()  # a link to a folder above
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if _is_source_folder(Path(folder, name)))
        for name in sorted(files):
            path = Path(folder, name)
            if name.endswith(".py") and not name.startswith(".") and not ignored(path.relative_to(root)):
                yield path


def _is_source_folder(path: Path) -> bool:
    name = path.name
    return not name.startswith(".") and name != "__pycache__" and not (path / "pyvenv.cfg").exists()


def _ignore(module: LocalModule) -> Ignored:
    return predicate("add_local_python_source", module.ignore)


def place_files(place: Place) -> dict[str, bytes]:
    """Return the files that a function's own module needs, by their path in the bundle."""
    if place.is_package:
        return _package_files(place.module.partition(".")[0], place.roots, _nothing)
    return {f"{place.module}.py": place.roots[0].read_bytes()}


def module_files(module: LocalModule) -> dict[str, bytes]:
    """Return the files of a local module added to an image, by their path in the bundle."""
    roots, is_package = _locate_named(module.name)
    ignored = _ignore(module)
    if is_package:
        return {**_parents(module.name), **_package_files(module.name, roots, ignored)}
    path = PurePosixPath(*module.name.split(".")).with_suffix(".py")
    files = {} if ignored(Path(path.name)) else {str(path): roots[0].read_bytes()}
    return {**_parents(module.name), **files}


def _package_files(package: str, roots: Iterable[Path], ignored: Ignored) -> dict[str, bytes]:
    base = PurePosixPath(*package.split("."))
    return {
        str(base / path.relative_to(root).as_posix()): path.read_bytes()
        for root in roots
        for path in python_files(root, ignored)
    }


def _parents(name: str) -> dict[str, bytes]:
    """Return the `__init__.py` files of the packages that a dotted name lies in."""
    files = {}
    parts = name.split(".")[:-1]
    for length in range(1, len(parts) + 1):
        roots, _ = _locate_named(".".join(parts[:length]))
        for init in (root / "__init__.py" for root in roots):
            if init.is_file():
                files[str(PurePosixPath(*parts[:length], "__init__.py"))] = init.read_bytes()
    return files


# --- packing


def pack(files: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> bytes:
    """Return files as one archive. The same files give the same bytes. Modes are 0644 unless they say."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(files[name]), 0
            entry.mode = (modes or {}).get(name, 0o644)
            archive.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()


def serialize(function: Callable[..., Any], name: str) -> bytes:
    """Return a function pickled by value, with what it uses of its own module.

    Raises:
        SerializationError: something it refers to cannot be pickled.
        InvalidError: it is larger than 16 MiB.
    """
    from tidemill._wire import payload

    with _by_value(function.__module__):
        try:
            data = payload.pickle(function)
        except SerializationError as error:
            raise SerializationError(f"function {name!r} cannot be sent: {error}", hint=error.hint) from error
    if len(data) > MAX_SERIALIZED:
        raise InvalidError(
            f"function {name!r} has {len(data) / (1 << 20):.1f} MiB when pickled, the limit is 16 MiB",
            hint="pass large data as an argument instead of holding it in a global or a closure",
        )
    if len(data) > WARN_SERIALIZED:
        warnings.warn(
            f"function {name!r} has {len(data) / 1024:.0f} KiB when pickled: pass large data as an argument",
            UserWarning,
            stacklevel=2,
        )
    return data


class _by_value:  # noqa: N801 - used as a statement
    """Have cloudpickle send what a module defines itself: the container has no such module."""

    def __init__(self, name: str) -> None:
        self._module = None if name == "__main__" else sys.modules.get(name)

    def __enter__(self) -> None:
        import cloudpickle

        if self._module is not None and self._module.__name__ in cloudpickle.list_registry_pickle_by_value():
            self._module = None  # the user registered it: it stays so
        if self._module is not None:
            cloudpickle.register_pickle_by_value(self._module)

    def __exit__(self, *_: object) -> None:
        import cloudpickle

        if self._module is not None:
            cloudpickle.unregister_pickle_by_value(self._module)


class Packer:
    """Packs the functions of one app; what several of them share is read once.

    `paths` are the files and folders that it was made from.
    """

    def __init__(self) -> None:
        self._archives: dict[object, tuple[str, bytes] | None] = {}
        self.paths: set[Path] = set()

    def pack(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        serialized: bool,
        include_source: bool,
        modules: Sequence[LocalModule],
    ) -> Packed:
        """Return what one function brings along. Reads files.

        A function that is in no file goes along pickled, whether it says so or not.

        Raises:
            InvalidError, ModuleNotMountable, SerializationError: its code cannot be sent.
        """
        found = [self._bundle(module, functools.partial(module_files, module)) for module in modules]
        for module in modules:
            self.paths.update(_locate_named(module.name)[0])
        if file := getattr(sys.modules.get(function.__module__), "__file__", None):
            self.paths.add(Path(file).absolute())
        if serialized or not has_file(function):
            data = serialize(function, name)
            digest = hashlib.sha256(data).hexdigest()
            bundles = dict(bundle for bundle in found if bundle)
            source = Source(tuple(bundles), serialized=digest)
            return Packed(source, {**bundles, digest: data})
        place = locate(function)
        if include_source:
            found.insert(0, self._bundle(place, functools.partial(place_files, place)))
            self.paths.update(place.roots)
        bundles = dict(bundle for bundle in found if bundle)
        return Packed(Source(tuple(bundles), place.module, function.__qualname__), bundles)

    def _bundle(self, what: object, files: Callable[[], dict[str, bytes]]) -> tuple[str, bytes] | None:
        if what not in self._archives:
            content = files()
            data = pack(content)
            self._archives[what] = (hashlib.sha256(data).hexdigest(), data) if content else None
        return self._archives[what]
