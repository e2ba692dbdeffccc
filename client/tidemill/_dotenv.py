"""`.env` files: found upwards from a folder, read into a dictionary.

The common form: `NAME=value` and `export NAME=value`, comments, single quotes (literal), double quotes
(with escapes, over several lines), and `${NAME}` or `${NAME:-default}` outside of single quotes.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tidemill.exception import InvalidError

_ENTRY = re.compile(
    r"""
    [^\S\n]* (?:export[^\S\n]+)? (?P<name>[^\s=#'"]+) [^\S\n]*
    (?: = [^\S\n]*
        (?: '(?P<single>[^']*)' | "(?P<double>(?:\\.|[^"\\])*)" | (?P<plain>[^\n]*) )
    )?
    [^\S\n]* (?:\#[^\n]*)? (?=\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLANK = re.compile(r"[^\S\n]*(?:#[^\n]*)?(?=\n|\Z)")
_REFERENCE = re.compile(r"\$\{(?P<name>[^}:]+)(?::-(?P<default>[^}]*))?\}")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def find(start: Path, filename: str) -> Path | None:
    """Return the nearest file of this name in `start` (or the folder of the file `start`) or above it."""
    start = start.resolve()
    folder = start if start.is_dir() else start.parent
    return next((path / filename for path in (folder, *folder.parents) if (path / filename).is_file()), None)


def parse(text: str, environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Return the variables of a `.env` file; a name without `=` has None.

    References are looked up in the file so far, then in `environment`.

    Raises:
        InvalidError: a line is neither an entry nor a comment.
    """
    values: dict[str, str | None] = {}
    position, text = 0, text.replace("\r\n", "\n")
    while position <= len(text):
        blank = _BLANK.match(text, position)
        entry = None if blank else _ENTRY.match(text, position)
        if entry:
            values[entry["name"]] = _value(entry, {**environment, **{k: v or "" for k, v in values.items()}})
        elif not blank:
            line = text.count("\n", 0, position) + 1
            raise InvalidError(f"line {line} of the .env file is not of the form NAME=value")
        position = (entry or blank).end() + 1  # type: ignore[union-attr]  # one of them matched
    return values


def _value(entry: re.Match[str], known: Mapping[str, str]) -> str | None:
    if entry["single"] is not None:
        return entry["single"]
    if entry["double"] is not None:
        unescaped = re.sub(
            r"\\(.)",
            lambda m: _ESCAPES.get(m[1], m[1] if m[1] in "\"\\'$" else m[0]),
            entry["double"],
            flags=re.DOTALL,
        )
        return _expand(unescaped, known)
    if entry["plain"] is None:
        return None
    return _expand(re.sub(r"(?:^|\s)#.*", "", entry["plain"]).strip(), known)


def _expand(text: str, known: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda m: known.get(m["name"], m["default"] or ""), text)
