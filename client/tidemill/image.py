"""Images: the environment a function runs in, as an immutable recipe of layers."""

import contextlib
import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from tidemill import _later, _names, _runtime
from tidemill._wire import ids
from tidemill._wire.specs import ImageSpec
from tidemill.config import config
from tidemill.exception import InvalidError, UnimplementedError

if TYPE_CHECKING:
    from tidemill.secret import Secret

P = ParamSpec("P")
R = TypeVar("R")

Ignore = Sequence[str] | Callable[[Path], bool]

_PYTHON = re.compile(r"(3)\.(\d{1,2})(?:\.\d{1,3})?")
_OLDEST = (3, 11)  # what runs inside a container needs it

_build: str = ""  # what makes forced layers of this process differ from all earlier ones


class LocalModule:
    """A local module or package that containers of an image can import."""

    __slots__ = ("ignore", "name")

    def __init__(self, name: str, ignore: Ignore) -> None:
        self.name = name
        self.ignore = ignore


class Image(metaclass=_later.Listed):
    """An immutable recipe. Every method returns a new image; nothing is built before it is used.

    Example:
        `image = tidemill.Image.debian_slim().uv_pip_install("numpy").env({"MODE": "fast"})`
    """

    _layers: tuple[tuple[str, dict[str, Any]], ...]
    _modules: tuple[LocalModule, ...]
    _is_closed: bool

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise InvalidError("an Image is not made by its class", hint="begin with Image.debian_slim()")

    @classmethod
    def _make(
        cls,
        layers: tuple[tuple[str, dict[str, Any]], ...],
        modules: tuple[LocalModule, ...] = (),
        *,
        is_closed: bool = False,
    ) -> "Image":
        image = cls.__new__(cls)
        image._layers, image._modules, image._is_closed = layers, modules, is_closed
        return image

    # --- bases

    @classmethod
    def debian_slim(cls, python_version: str | None = None, force_build: bool = False) -> "Image":
        """Return the base image: Debian with Python.

        Args:
            python_version: such as `"3.12"`; by default the minor version of this Python.
            force_build: make it anew, whatever is cached.

        Raises:
            InvalidError: the version cannot be one.
        """
        version = _python_version(python_version)
        return cls._make((("debian_slim", {"python_version": version, **_forced(force_build)}),))

    # --- layers

    def pip_install(
        self,
        *packages: str | Sequence[str],
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Mapping[str, str | None] | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: str | Sequence[str] | None = None,
    ) -> "Image":
        """Return the image with Python packages installed.

        Args:
            packages: requirements such as `"numpy"` or `"numpy>=2"`, or lists of them.
            find_links, index_url, extra_index_url: where packages come from.
            pre: take pre-releases too.
            extra_options: further options of the installer, as one string.
            force_build: make this layer and those after it anew, whatever is cached.

        Raises:
            InvalidError: a requirement is not a string.
            UnimplementedError: `env`, `secrets` or `gpu` is given: builds have none in this version.
        """
        _refuse_build_options("pip_install", env=env, secrets=secrets, gpu=gpu)
        arguments = _install_arguments(find_links, index_url, extra_index_url, pre, extra_options)
        return self._install("pip_install", _flatten("pip_install", packages), arguments, force_build)

    def uv_pip_install(
        self,
        *packages: str | Sequence[str],
        requirements: Sequence[str] | None = None,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        uv_version: str | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: "Sequence[Secret] | None" = None,
        gpu: str | Sequence[str] | None = None,
    ) -> "Image":
        """Return the image with Python packages installed by `uv`, as `pip_install` does here too.

        Args:
            requirements: files with one requirement in each line.
            uv_version: accepted; every worker has one version of `uv`.

        Raises:
            InvalidError: a requirement is not a string, or a requirements file cannot be read.
            UnimplementedError: `env`, `secrets` or `gpu` is given: builds have none in this version.
        """
        _refuse_build_options("uv_pip_install", env=env, secrets=secrets, gpu=gpu)
        if uv_version is not None and not isinstance(uv_version, str):
            raise InvalidError(f"uv_version has to be a string, not {uv_version!r}")
        arguments = _install_arguments(find_links, index_url, extra_index_url, pre, extra_options)
        wanted = [*_flatten("uv_pip_install", packages), *_read_requirements(requirements or ())]
        return self._install("uv_pip_install", wanted, arguments, force_build)

    def env(self, vars: Mapping[str, str | None]) -> "Image":  # noqa: A002 - Modal's name
        """Return the image with environment variables set.

        Raises:
            InvalidError: a name or a value is not a string.
        """
        variables = _names.check_variables("Image.env", vars)
        return self._add("env", {"vars": dict(sorted(variables.items()))})

    def workdir(self, path: str | PurePosixPath) -> "Image":
        """Return the image with another working directory.

        Raises:
            InvalidError: the path is not absolute.
        """
        pure = PurePosixPath(path)
        if not pure.is_absolute() or ".." in pure.parts:
            raise InvalidError(f"Image.workdir: {str(path)!r} has to be an absolute path without '..'")
        return self._add("workdir", {"path": str(pure)})

    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: Ignore = ()) -> "Image":
        """Return the image with local modules that its functions can import.

        Args:
            modules: names of modules or packages that can be imported here, such as `"my_package"`.
            copy: make it part of the image, so that other layers may follow. Otherwise it is attached
                when a container starts, costs no build, and has to come last.
            ignore: files to leave out: patterns as in `.dockerignore`, or a function of the path that
                returns True. Only `.py` files are taken in any case.

        Raises:
            InvalidError: a name is not that of a module.
        """
        for module in modules:
            if not isinstance(module, str) or not all(part.isidentifier() for part in module.split(".")):
                raise InvalidError(f"Image.add_local_python_source: not the name of a module: {module!r}")
        if isinstance(ignore, str):
            raise InvalidError("Image.add_local_python_source: ignore has to be a list or a function")
        if copy:
            self._check_open("add_local_python_source")
        added = tuple(LocalModule(module, ignore) for module in modules)
        return self._make(self._layers, self._modules + added, is_closed=self._is_closed or not copy)

    def pipe(self, func: "Callable[Concatenate[Image, P], R]", *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `func(image, ...)`: recipes as functions, in one chain."""
        return func(self, *args, **kwargs)

    @contextlib.contextmanager
    def imports(self) -> Iterator[None]:
        """Import what only containers of this image have: elsewhere a missing module is passed over."""
        try:
            yield
        except Exception as error:
            running = os.environ.get("TIDEMILL_IMAGE_ID", "") if not _runtime.is_local() else None
            if running == key(self._spec()):
                raise
            if not isinstance(error, ImportError) or running == "":
                text = f"an import under Image.imports() failed: {type(error).__name__}: {error}"
                warnings.warn(text, RuntimeWarning, stacklevel=3)

    # --- what the platform is told

    def _install(
        self, operation: str, packages: list[str], arguments: dict[str, Any], force_build: bool
    ) -> "Image":
        if not packages:
            return self
        return self._add(operation, {"packages": packages, **arguments, **_forced(force_build)})

    def _add(self, operation: str, arguments: dict[str, Any]) -> "Image":
        self._check_open(operation)
        return self._make((*self._layers, (operation, arguments)), self._modules)

    def _check_open(self, operation: str) -> None:
        if self._is_closed:
            raise InvalidError(
                f"Image.{operation} comes after local files that are attached when a container starts",
                hint="put add_local_... last, or give it copy=True",
            )

    def _spec(self) -> ImageSpec:
        return ImageSpec(self._layers)

    @property
    def _python(self) -> str:
        """The `major.minor` of the Python in this image."""
        version: str = self._layers[0][1]["python_version"]
        return ".".join(version.split(".")[:2])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and (self._layers, self._modules) == (other._layers, other._modules)

    def __hash__(self) -> int:
        return hash(key(self._spec()))

    def __repr__(self) -> str:
        return "Image." + ".".join(f"{operation}(...)" for operation, _ in self._layers)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise _later.missing(self, name)


def key(spec: ImageSpec) -> str:
    """Return the digest of a recipe: equal recipes have equal keys, in every process."""
    canonical = json.dumps(spec.layers, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def check(image: Any) -> Image | None:
    """Return a decorator's `image=`, or raise `InvalidError`."""
    if image is not None and not isinstance(image, Image):
        raise InvalidError(f"image has to be an Image, not {image!r}", hint="begin with Image.debian_slim()")
    return image


def _python_version(version: Any) -> str:
    if version is None:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    if not isinstance(version, str):
        raise InvalidError(
            f"python_version has to be a string, not {version!r}",
            hint='quote it: "3.10" is not the number 3.1',
        )
    match = _PYTHON.fullmatch(version)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST:
        raise InvalidError(
            f"not a version of Python for containers: {version!r}", hint="use 3.11 or newer, such as '3.12'"
        )
    return version


def _forced(force_build: bool) -> dict[str, str]:
    """Return what makes a layer's key new in this process, if it is to be built again."""
    global _build  # noqa: PLW0603 - one value for the whole process
    if not force_build and not config["force_build"]:
        return {}
    _build = _build or ids.new(ids.IMAGE)
    return {"build": _build}


def _flatten(operation: str, packages: Sequence[Any]) -> list[str]:
    flat: list[str] = []
    for item in packages:
        names = [item] if isinstance(item, str) else item
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise InvalidError(f"Image.{operation}: packages are strings or lists of strings, not {item!r}")
        flat += [name.strip() for name in names if name.strip()]
    if unsafe := next((name for name in flat if name.startswith("-")), None):
        raise InvalidError(
            f"Image.{operation}: {unsafe!r} is an option, not a package",
            hint="options go into extra_options=",
        )
    return flat


def _install_arguments(
    find_links: str | None,
    index_url: str | None,
    extra_index_url: str | Sequence[str] | None,
    pre: bool,
    extra_options: str,
) -> dict[str, Any]:
    """Return what is set, so that a recipe does not change with options nobody gave."""
    extra = extra_index_url if isinstance(extra_index_url, str | None) else list(extra_index_url)
    arguments = {
        "find_links": find_links,
        "index_url": index_url,
        "extra_index_url": extra,
        "pre": bool(pre),
        "extra_options": extra_options,
    }
    return {name: value for name, value in arguments.items() if value}


def _read_requirements(files: Sequence[str]) -> list[str]:
    if isinstance(files, str):
        raise InvalidError(f"Image.uv_pip_install: requirements has to be a list of files, not {files!r}")
    found: list[str] = []
    for file in files:
        if not _runtime.is_local():
            break  # the file lies with the caller; a container's image is made already
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InvalidError(f"Image.uv_pip_install: {file} cannot be read: {error}") from error
        found += [text for line in lines if (text := re.sub(r"(?:^|\s)#.*", "", line).strip())]
    return _flatten("uv_pip_install", found)


def _refuse_build_options(operation: str, **options: Any) -> None:
    for name, value in options.items():
        if value:
            raise UnimplementedError(f"Image.{operation}({name}=...) is not in this version of Tidemill")
