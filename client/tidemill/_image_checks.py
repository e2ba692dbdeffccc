"""What the arguments of `Image`'s methods may be."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tidemill import _given, _names
from tidemill._image_parts import BuildSecrets
from tidemill._wire import ids
from tidemill.config import config
from tidemill.exception import InvalidError, UnimplementedError

if TYPE_CHECKING:
    from tidemill.secret import Secret

_PYTHON = re.compile(r"(3)\.(\d{1,2})(?:\.\d{1,3})?")
_OLDEST = (3, 11)  # what runs inside a container needs it
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")

_build: str = ""  # what makes forced layers of this process differ from all earlier ones


def python_version(version: Any) -> str:
    """Return the version of Python that is asked for; by default the minor version of this one."""
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


def add_python(version: Any) -> dict[str, str]:
    """Return the argument of a base that gets a Python of its own."""
    return {} if version is None else {"add_python": python_version(version)}


def forced(force_build: bool) -> dict[str, str]:
    """Return what makes a layer's key new in this process, if it is to be built again."""
    global _build  # noqa: PLW0603 - one value for the whole process
    if not force_build and not config["force_build"]:
        return {}
    _build = _build or ids.new(ids.IMAGE)
    return {"build": _build}


def flat(operation: str, packages: Sequence[Any], *, what: str = "packages") -> list[str]:
    """Return strings and lists of strings as one list; options are refused."""
    found: list[str] = []
    for item in packages:
        names = [item] if isinstance(item, str) else item
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise InvalidError(f"Image.{operation}: {what} are strings or lists of strings, not {item!r}")
        found += [name.strip() for name in names if name.strip()]
    if unsafe := next((name for name in found if name.startswith("-")), None):
        raise InvalidError(
            f"Image.{operation}: {unsafe!r} is an option, not a package",
            hint="options go into extra_options=",
        )
    return found


def commands(operation: str, given: Sequence[Any]) -> list[str]:
    """Return lines to run, as one list."""
    found: list[str] = []
    for item in given:
        lines = [item] if isinstance(item, str) else item
        if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
            raise InvalidError(f"Image.{operation}: commands are strings or lists of strings, not {item!r}")
        found += lines
    return found


def words(operation: str, given: Any) -> list[str]:
    """Return a command given as a list of strings."""
    if not isinstance(given, list | tuple) or not all(isinstance(word, str) for word in given):
        raise InvalidError(f"Image.{operation} takes a list of strings, not {given!r}")
    return list(given)


def names(operation: str, what: str, given: Any) -> list[str]:
    """Return a list of names, such as groups or extras."""
    if given is None:
        return []
    return [str(name) for name in words(f"{operation}({what}=...)", given)]


def install_arguments(
    find_links: str | None,
    index_url: str | None,
    extra_index_url: str | Sequence[str] | None,
    pre: bool,
    extra_options: str,
) -> dict[str, Any]:
    """Return what is set, so that a recipe does not change with options nobody gave."""
    extra = extra_index_url if isinstance(extra_index_url, str | None) else list(extra_index_url)
    given = {
        "find_links": find_links,
        "index_url": index_url,
        "extra_index_url": extra,
        "pre": bool(pre),
        "extra_options": extra_options,
    }
    return {name: value for name, value in given.items() if value}


def build_options(
    operation: str,
    *,
    env: Mapping[str, str | None] | None = None,
    secrets: "Sequence[Secret] | None" = None,
    gpu: str | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the variables and secrets that one layer is built with.

    `gpu` is taken where a layer only installs packages: they are wheels, which need none to be there.
    """
    from tidemill import secret

    if gpu is not None and not isinstance(gpu, str | list | tuple):
        raise InvalidError(f"Image.{operation}: gpu has to be a string or a list of them, not {gpu!r}")
    found: dict[str, Any] = {}
    if env:
        found["env"] = variables(f"Image.{operation}", env)
    if secrets:
        found["secrets"] = BuildSecrets(secret.check(secrets))
    return found


def variables(what: str, given: Any) -> dict[str, str]:
    """Return environment variables in one order, whatever the order they were given in."""
    return dict(sorted(_names.check_variables(what, given).items()))


def resources(operation: str, cpu: Any, memory: Any) -> dict[str, Any]:
    """Return the cores and MiB that a build needs, if they are given."""
    found: dict[str, Any] = {}
    kinds: _given.Kinds
    for name, given, kinds in (("cpu", cpu, (int, float)), ("memory", memory, (int,))):
        if given is not None:
            _given.check_number(f"Image.{operation}: {name}", given, kinds)
            found[name] = given
    return found


def refuse(operation: str, **options: Any) -> None:
    """Refuse options that this version does not have."""
    for name, value in options.items():
        if value:
            raise UnimplementedError(f"Image.{operation}({name}=...) is not in this version of Tidemill")


def absolute(operation: str, path: Any) -> str:
    """Return a path in the container, without anything relative in it."""
    text = str(path)
    pure = PurePosixPath(text)
    if not pure.is_absolute() or ".." in pure.parts:
        raise InvalidError(f"Image.{operation}: {text!r} has to be an absolute path without '..'")
    return str(pure)


def reference(operation: str, tag: Any) -> str:
    """Return the name of an image in a registry."""
    if not isinstance(tag, str) or not _REFERENCE.fullmatch(tag):
        raise InvalidError(
            f"Image.{operation}: not the name of an image: {tag!r}", hint="such as 'python:3.12-slim'"
        )
    return tag
