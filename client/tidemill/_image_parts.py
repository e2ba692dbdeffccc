"""What recipes take from this machine: files, functions and secrets, read when an app starts.

A part stands in the arguments of a layer. `declared()` is what is known of it without reading anything,
which is the same here and in a container; `collect()` reads it, hands over what has to be stored, and
returns what stands in its place in the recipe that the platform is told: content counts, places do not.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tidemill import file_pattern_matcher
from tidemill._dataclass import dataclass
from tidemill.exception import InvalidError

if TYPE_CHECKING:
    from tidemill.secret import Secret

Ignore = Sequence[str] | Callable[[Path], bool]

_INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--pre")

MAX_BUNDLE = 1 << 30  # bytes of one folder, as the worker takes it


class Collected:
    """What parts hand over: blobs by their SHA-256, and what does not count in an image's key.

    `paths` are the files and folders that were read. Secrets and functions stand in the recipe by their
    number here.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.secrets: list[Secret] = []
        self.functions: list[str] = []
        self.paths: set[Path] = set()

    def store(self, data: bytes) -> str:
        """Take a blob; return its digest."""
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest


class LocalModule:
    """A local module or package that containers of an image can import."""

    __slots__ = ("ignore", "name")

    def __init__(self, name: str, ignore: Ignore) -> None:
        self.name = name
        self.ignore = ignore

    def declared(self) -> str:
        return self.name

    def collect(self, into: Collected) -> str:
        from tidemill import _source

        return into.store(_source.pack(_source.module_files(self)))


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A file, or the files below a folder, and where they are to lie in the container."""

    local: str
    remote: str
    is_folder: bool
    ignore: Ignore = ()

    def declared(self) -> list[str]:
        return [self.local, self.remote]

    def collect(self, into: Collected) -> dict[str, str]:
        """Return the folder that the files lie in, and the digest of their archive."""
        from tidemill import _source

        into.paths.add(Path(self.local).absolute())
        files = self._folder() if self.is_folder else self._file()
        folder = self.remote if self.is_folder else str(PurePosixPath(self.remote).parent)
        return {"remote": folder, "bundle": into.store(_source.pack(files, _modes(files)))}

    def _file(self) -> "Files":
        path = Path(self.local)
        return Files({PurePosixPath(self.remote).name: _readable(path, "file")})

    def _folder(self) -> "Files":
        root = Path(self.local)
        if not root.is_dir():
            raise InvalidError(f"there is no folder {self.local} to add to the image")
        return files_below(root, file_pattern_matcher.predicate("add_local_dir", self.ignore))


class Files(dict[str, bytes]):
    """The content of files by their path in an archive, and which of them may be executed."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.executable = {name for name, path in paths.items() if os.access(path, os.X_OK)}
        super().__init__({name: path.read_bytes() for name, path in paths.items()})


def _modes(files: Files) -> dict[str, int]:
    return dict.fromkeys(files.executable, 0o755)


def files_below(root: Path, ignored: Callable[[Path], bool]) -> Files:
    """Return every file below a folder that is not ignored; links are followed, once."""
    found: dict[str, Path] = {}
    size = 0
    prune = getattr(ignored, "can_prune_directories", lambda: False)()
    for path in _walk(root, ignored if prune else None):
        relative = path.relative_to(root)
        if not ignored(relative) and path.is_file():
            found[relative.as_posix()] = path
            size += path.stat().st_size
            if size > MAX_BUNDLE:
                raise InvalidError(
                    f"{root} holds more than 1 GiB", hint="leave files out by ignore=, or use a Volume"
                )
    return Files(found)


def _walk(root: Path, pruned: Callable[[Path], bool] | None) -> "list[Path]":
    paths: list[Path] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()  # a link to a folder above
            continue
        seen.add(real)
        here = Path(folder)
        folders.sort()
        if pruned is not None:
            folders[:] = [name for name in folders if not pruned((here / name).relative_to(root))]
        paths += [here / name for name in sorted(files)]
    return paths


def _readable(path: Path, what: str) -> Path:
    if not path.is_file():
        raise InvalidError(f"there is no {what} {path} to add to the image")
    return path


@dataclass(frozen=True, slots=True)
class LocalText:
    """A text file whose content is part of the recipe. What is taken of it is a matter of its `kind`."""

    path: str
    what: str
    kind: str = "text"
    optional: bool = False
    extras: tuple[str, ...] = ()

    def declared(self) -> list[str]:
        return [self.path, *self.extras]

    def collect(self, into: Collected) -> Any:
        into.paths.add(Path(self.path).absolute())
        try:
            text = Path(self.path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            if self.optional and isinstance(error, FileNotFoundError):
                return None
            raise InvalidError(f"{self.what}: {self.path} cannot be read: {error}") from error
        if self.kind == "requirements":
            return self._requirements(text, into)
        return self._dependencies(text) if self.kind == "pyproject" else text

    def _requirements(self, text: str, into: Collected) -> list[str]:
        """Return the lines of a requirements file, and of the files that it names by `-r`."""
        found: list[str] = []
        for line in text.replace("\\\n", " ").splitlines():
            needed = " ".join(re.sub(r"(?:^|\s)#.*", "", line).split())
            option, _, value = needed.partition(" ")
            if option in ("-r", "--requirement"):
                other = Path(self.path).parent / value
                found += LocalText(str(other), self.what, "requirements").collect(into)
            elif needed.startswith("-") and option.partition("=")[0] not in _INDEX_OPTIONS:
                raise InvalidError(f"{self.what}: {self.path}: {option} cannot be carried out on a worker")
            elif needed:
                found.append(needed)
        return found

    def _dependencies(self, text: str) -> list[str]:
        """Return the dependencies of a `pyproject.toml`, and of some of its extras."""
        import tomllib

        try:
            project = tomllib.loads(text).get("project", {})
        except tomllib.TOMLDecodeError as error:
            raise InvalidError(f"{self.what}: {self.path} cannot be read: {error}") from error
        if "dependencies" not in project:
            raise InvalidError(f"{self.what}: {self.path} has no [project] with dependencies")
        optional = project.get("optional-dependencies", {})
        if unknown := [extra for extra in self.extras if extra not in optional]:
            raise InvalidError(f"{self.what}: {self.path} has no optional dependencies {unknown[0]!r}")
        return [*project["dependencies"], *(need for extra in self.extras for need in optional[extra])]


@dataclass(frozen=True, slots=True)
class LocalContext:
    """The folder that a Dockerfile copies from, without what its `.dockerignore` names."""

    folder: str
    dockerfile: str | None
    ignore: Ignore | None  # None: what `.dockerignore` says

    def declared(self) -> str:
        return self.folder

    def collect(self, into: Collected) -> str:
        from tidemill import _source

        root = Path(self.folder)
        if not root.is_dir():
            raise InvalidError(f"there is no folder {self.folder} for the Dockerfile")
        into.paths.add(root.absolute())
        files = files_below(root, self._ignored(root))
        return into.store(_source.pack(files, _modes(files)))

    def _ignored(self, root: Path) -> Callable[[Path], bool]:
        if self.ignore is not None:
            return file_pattern_matcher.predicate("from_dockerfile", self.ignore)
        beside = Path(f"{self.dockerfile}.dockerignore") if self.dockerfile else root / ".dockerignore"
        for path in (beside, root / ".dockerignore"):
            if path.is_file():
                return file_pattern_matcher.FilePatternMatcher.from_file(path)
        return file_pattern_matcher.FilePatternMatcher()


@dataclass(frozen=True, slots=True)
class LocalFunction:
    """A function that runs while the image is built, with its arguments. What it says counts in the key."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    include_source: bool

    def declared(self) -> str:
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def collect(self, into: Collected) -> dict[str, Any]:
        from tidemill import _image_functions

        key, data, bundles = _image_functions.pack(
            self.function, self.args, self.kwargs, include_source=self.include_source
        )
        into.blobs.update(bundles)
        into.functions.append(into.store(data))
        return {"key": key, "number": len(into.functions) - 1}


@dataclass(frozen=True, slots=True)
class BuildSecrets:
    """Secrets of one layer. Their values count in no key and are in no layer."""

    secrets: "tuple[Secret, ...]"

    def declared(self) -> list[str]:
        return [repr(secret) for secret in self.secrets]

    def collect(self, into: Collected) -> list[int]:
        numbers = []
        for secret in self.secrets:
            if secret not in into.secrets:
                into.secrets.append(secret)
            numbers.append(into.secrets.index(secret))
        return numbers


PARTS = (LocalModule, LocalFiles, LocalText, LocalContext, LocalFunction, BuildSecrets)


def declared(value: Any) -> Any:
    """Return arguments of a layer as they were given, without reading anything."""
    return _replace(value, lambda part: part.declared())


def collected(value: Any, into: Collected) -> Any:
    """Return arguments of a layer as the platform is told of them."""
    return _replace(value, lambda part: part.collect(into))


def _replace(value: Any, of: Callable[[Any], Any]) -> Any:
    if isinstance(value, PARTS):
        return of(value)
    if isinstance(value, dict):
        return {name: _replace(each, of) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(each, of) for each in value]
    return value
