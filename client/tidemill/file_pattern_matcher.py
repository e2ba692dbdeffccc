"""Patterns for files to leave out, or to take, as `.dockerignore` has them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tidemill import _patterns
from tidemill.exception import InvalidError

Predicate = Callable[[Path], bool]


class FilePatternMatcher:
    """Tells whether a relative path matches patterns; the last pattern that fits decides.

    `*` and `?` stay within a folder, `**` does not, `!` takes back. A folder that matches takes
    everything in it along. `~matcher` matches what `matcher` does not.

    Example:
        `image.add_local_dir("data", "/data", ignore=~FilePatternMatcher("**/*.csv"))`
    """

    def __init__(self, *pattern: str) -> None:
        self._patterns = pattern
        self._matches = _patterns.matcher(pattern)

    @classmethod
    def from_file(cls, file_path: str | os.PathLike[str]) -> "FilePatternMatcher":
        """Return a matcher with the patterns of a file, one in each line.

        Raises:
            InvalidError: it cannot be read.
        """
        try:
            return cls(*Path(file_path).read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidError(f"the patterns in {file_path} cannot be read: {error}") from error

    def can_prune_directories(self) -> bool:
        """Return whether a folder that matches need not be looked into: nothing is taken back."""
        return not any(pattern.strip().startswith("!") for pattern in self._patterns)

    def __call__(self, file_path: str | os.PathLike[str]) -> bool:
        return self._matches(Path(file_path))

    def __invert__(self) -> Predicate:
        return _Inverted(self)

    def __repr__(self) -> str:
        return f"FilePatternMatcher({', '.join(map(repr, self._patterns))})"


class _Inverted:
    """Matches what another does not. A class, so that images with one can be pickled."""

    def __init__(self, matcher: Predicate) -> None:
        self._matcher = matcher

    def can_prune_directories(self) -> bool:
        return False

    def __call__(self, file_path: str | os.PathLike[str]) -> bool:
        return not self._matcher(Path(file_path))

    def __invert__(self) -> Predicate:
        return self._matcher


NON_PYTHON_FILES = ~FilePatternMatcher("**/*.py")


def predicate(where: str, ignore: Sequence[str] | Predicate) -> Predicate:
    """Return the function that an `ignore=` stands for; `InvalidError` if it is none."""
    if callable(ignore):
        return ignore
    if isinstance(ignore, str) or not all(isinstance(pattern, str) for pattern in ignore):
        raise InvalidError(f"Image.{where}: ignore has to be a list of patterns or a function")
    return FilePatternMatcher(*ignore)
