"""The configuration file: a table of settings for each profile, one of which is active.

    [default]
    active = true
    server_url = "nats://tide.example:4222"
    token_id = "..."
    token_secret = "..."
    environment = "main"

It is `~/.tidemill.toml` or what `TIDEMILL_CONFIG_PATH` names, private to its owner, and replaced as a
whole: a reader sees it before or after a change. `TIDEMILL_PROFILE` chooses another profile than the
active one.
"""

import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from tidemill._dataclass import dataclass
from tidemill.exception import InvalidError, NotFoundError

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile. `settings` may hold a secret, so they are never shown."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class File:
    """What the file holds: its profiles by name, and which of them is marked as the active one."""

    profiles: Mapping[str, Profile] = field(default_factory=dict)
    marked: str | None = None


def path() -> Path:
    """Return where the file is, or would be."""
    return Path(os.environ.get("TIDEMILL_CONFIG_PATH") or "~/.tidemill.toml").expanduser().absolute()


def active() -> Profile:
    """Return the profile in use, an empty one if the file has none.

    Raises:
        InvalidError: the file cannot be read.
        NotFoundError: `TIDEMILL_PROFILE` names a profile that is not there.
    """
    file = read()
    asked = os.environ.get("TIDEMILL_PROFILE")
    if asked and asked not in file.profiles:
        raise _missing(asked, file)
    name = asked or file.marked or (next(iter(file.profiles)) if len(file.profiles) == 1 else DEFAULT)
    return file.profiles.get(name, Profile(name))


def read() -> File:
    """Return what the file holds. It is parsed again only when it has changed."""
    where = path()
    try:
        found = where.stat()
    except OSError:
        return File()
    stamp = (str(where), found.st_mtime_ns, found.st_size, found.st_ino)
    if _last.stamp != stamp:
        _last.file, _last.stamp = _parse(where), stamp
    return _last.file


class _Last:
    """The file as it was read last."""

    stamp: tuple[Any, ...] = ()
    file: File = File()


_last = _Last()


def _parse(where: Path) -> File:
    import tomllib

    try:
        tables = tomllib.loads(where.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidError(f"{where} cannot be read: {error}", hint="correct it, or move it away") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise InvalidError(
                f"{where}: {name} stands outside of a profile", hint=f"put it below [{DEFAULT}]"
            )
    profiles = {
        name: Profile(name, {key: value for key, value in table.items() if key != "active"})
        for name, table in tables.items()
    }
    marked = [name for name, table in tables.items() if table.get("active")]
    if len(marked) > 1:
        raise InvalidError(
            f"{where} has more than one active profile: {', '.join(marked)}",
            hint=f"run: tidemill profile activate {marked[0]}",
        )
    return File(profiles, marked[0] if marked else None)


def _missing(name: str, file: File) -> NotFoundError:
    there = ", ".join(file.profiles) or "none"
    return NotFoundError(f"there is no profile {name!r} in {path()}", hint=f"profiles: {there}")


# --- changing it


def activate(name: str) -> None:
    """Mark a profile as the active one. Raises `NotFoundError`."""
    document = _document()
    if name not in document:
        raise _missing(name, read())
    for other, table in document.items():
        table.pop("active", None)
        if other == name:
            table["active"] = True
    _write(document)


def store(name: str, settings: Mapping[str, str], *, make_active: bool = False) -> None:
    """Put settings into a profile, which is made if need be; the first one is the active one."""
    document = _document()
    is_first = not document
    table = document.setdefault(name, {})
    table.update(settings)
    _write(document)
    if make_active or is_first:
        activate(name)


def _document() -> Any:
    """Return the file as it can be changed, comments and order kept."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    where = path()
    try:
        return tomlkit.parse(where.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (OSError, ValueError, TOMLKitError) as error:
        raise InvalidError(f"{where} cannot be read: {error}", hint="correct it, or move it away") from error


def _write(document: Any) -> None:
    import tempfile

    import tomlkit

    where = Path(os.path.realpath(path()))  # a link stays one
    where.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=where.parent, prefix=f"{where.name}.")  # for its owner only
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(tomlkit.dumps(document))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(where)
    except BaseException:
        Path(name).unlink()
        raise
