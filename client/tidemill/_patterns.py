"""Patterns for files to leave out, as `.dockerignore` has them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tidemill.exception import InvalidError


def matcher(patterns: Sequence[str]) -> Callable[[Path], bool]:
    """Return a function that says whether a relative path matches; the last pattern that fits decides.

    `*` and `?` stay within a folder, `**` does not, `!` takes back. A folder that matches takes
    everything in it along.
    """
    rules = [_rule(pattern) for pattern in patterns if pattern.strip() and not pattern.startswith("#")]

    def matches(path: Path) -> bool:
        decided = False
        for is_match, expression in rules:
            if expression.fullmatch(path.as_posix()):
                decided = is_match
        return decided

    return matches


def _rule(pattern: str) -> tuple[bool, re.Pattern[str]]:
    if not isinstance(pattern, str):
        raise InvalidError(f"not a pattern for files to ignore: {pattern!r}")
    text = pattern.strip()
    is_match = not text.startswith("!")
    text = text.removeprefix("!").strip("/")
    return is_match, re.compile(_translate(text) + "(?:/.*)?", re.DOTALL)


def _translate(text: str) -> str:
    pieces = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]*\]|.", text, re.DOTALL)
    return "".join(_PIECES.get(piece) or (piece if len(piece) > 1 else re.escape(piece)) for piece in pieces)


_PIECES = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
