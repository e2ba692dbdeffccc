"""Volumes: directories that outlive containers. This version knows them by name; it cannot mount one yet."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tidemill import _later, _names
from tidemill.exception import InvalidError, UnimplementedError

if TYPE_CHECKING:
    from tidemill._client import Client


class Volume(metaclass=_later.Listed):
    """A handle of a volume, made by `Volume.from_name`. An app that mounts one is refused when it starts."""

    _name: str
    _is_read_only: bool
    _sub_path: str | None

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise InvalidError("a Volume is not made by its class", hint="use Volume.from_name(name)")

    @classmethod
    def _make(cls, name: str, read_only: bool, sub_path: str | None) -> "Volume":
        volume = cls.__new__(cls)
        volume._name, volume._is_read_only, volume._sub_path = name, read_only, sub_path
        return volume

    @classmethod
    def from_name(
        cls,
        name: str,
        *,
        environment_name: str | None = None,  # noqa: ARG003 - part of the signature to match
        create_if_missing: bool = False,  # noqa: ARG003 - part of the signature to match
        version: int | None = None,
        create_options: Mapping[str, Any] | None = None,  # noqa: ARG003 - part of the signature to match
        client: "Client | None" = None,  # noqa: ARG003 - part of the signature to match
    ) -> "Volume":
        """Return the handle of a named volume. Nothing is looked up before the app starts.

        Raises:
            InvalidError: the name or the version cannot be one.
        """
        _names.check_object("a volume", name)
        if version not in (None, 1, 2):
            raise InvalidError(f"the version of a volume is 1 or 2, not {version!r}")
        return cls._make(name, False, None)

    @property
    def name(self) -> str:
        """The volume's name."""
        return self._name

    def read_only(self) -> "Volume":
        """Return a handle whose mount cannot be written."""
        return self.with_mount_options(read_only=True)

    def with_mount_options(self, *, read_only: bool | None = None, sub_path: str | None = None) -> "Volume":
        """Return a handle that is mounted read-only, or only in part."""
        kept = self._is_read_only if read_only is None else read_only
        return self._make(self._name, kept, self._sub_path if sub_path is None else sub_path)

    def __repr__(self) -> str:
        return f"Volume.from_name({self._name!r})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise _later.missing(self, name)


_RESERVED = ("/", "/root", "/tmp")  # noqa: S108 - compared with, never used


def check(volumes: Any) -> dict[str, Volume]:
    """Return a decorator's `volumes=` by absolute path, or raise `InvalidError`."""
    if not isinstance(volumes, Mapping):
        raise InvalidError(f"volumes has to be a dictionary of path to Volume, not {volumes!r}")
    mounts: dict[str, Volume] = {}
    for path, volume in volumes.items():
        text = _check_path(path)
        if not isinstance(volume, Volume):
            raise InvalidError(f"volumes: what is mounted at {text} is not a Volume: {volume!r}")
        if text in mounts:
            raise InvalidError(f"two volumes are mounted at {text}")
        if twice := next((at for at, other in mounts.items() if other._name == volume._name), None):
            raise InvalidError(f"the volume {volume.name!r} is mounted twice, at {twice} and {text}")
        mounts[text] = volume
    return mounts


def _check_path(path: Any) -> str:
    if not isinstance(path, str | PurePosixPath):
        raise InvalidError(f"volumes: not a path: {path!r}")
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts:
        raise InvalidError(f"volumes: {str(path)!r} has to be an absolute path without '..'")
    if str(pure) in _RESERVED:
        raise InvalidError(f"volumes: nothing can be mounted at {str(pure)!r}")
    return str(pure)


def refuse(function: str, volumes: Mapping[str, Volume]) -> None:
    """Raise `UnimplementedError` if a function mounts a volume: this version cannot."""
    for path, volume in volumes.items():
        raise UnimplementedError(
            f"function {function!r} mounts {volume!r} at {path}: volumes are not in this version of Tidemill"
        )
