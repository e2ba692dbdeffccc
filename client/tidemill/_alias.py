"""`import modal` as `import tidemill`: a finder that resolves `modal` and `modal.x` to our own modules.

It stands first on `sys.meta_path`, and its loader gives out the very module objects of Tidemill. An entry
in `sys.modules` alone, or a finder behind the ordinary one, would load submodules a second time: classes
would exist twice and `except modal.exception.X` would miss silently.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

ALIAS = "modal"
VARIABLE = "TIDEMILL_ALIAS_MODAL"

# Where the same thing lies under another name.
_RENAMED = {"client": "_client", "output": "_output"}


class _Loader:
    """Gives out a module that exists. Without the base of `importlib.abc`: containers start faster."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002 - the protocol's signature
        module = importlib.import_module(self._target)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Undo what the import system wrote over; the module itself ran long ago."""
        module.__spec__ = self._spec
        module.__name__ = self._target


class Finder:
    """Finds `modal` and what is below it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's signature
        target: ModuleType | None = None,  # noqa: ARG002 - the protocol's signature
    ) -> ModuleSpec | None:
        head, _, rest = fullname.partition(".")
        if head != ALIAS:
            return None
        name = _target(rest)
        if name is None:
            raise ModuleNotFoundError(f"{fullname} is not in this version of Tidemill", name=fullname)
        return ModuleSpec(fullname, _Loader(name), is_package=not rest)  # type: ignore[arg-type]


def _target(rest: str) -> str | None:
    """Return our module for what stands after `modal.`, or None if there is none."""
    if not rest:
        return "tidemill"
    name = _RENAMED.get(rest, rest)
    if rest not in _RENAMED and any(part.startswith("_") for part in rest.split(".")):
        return None
    try:
        found = importlib.util.find_spec(f"tidemill.{name}")
    except ModuleNotFoundError:
        return None
    return None if found is None else f"tidemill.{name}"


def install(*, force: bool = False) -> bool:
    """Have `import modal` mean Tidemill; return whether it does.

    Where the real package is installed it stays what it is, unless `force` is given or
    `TIDEMILL_ALIAS_MODAL=1` is set. `TIDEMILL_ALIAS_MODAL=0` keeps the alias off, except by `force`.
    """
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return True
    wish = os.environ.get(VARIABLE, "")
    if not force and (wish == "0" or (wish != "1" and _is_real_one_there())):
        return False
    sys.meta_path.insert(0, Finder())
    return True


def uninstall() -> None:
    """Take the finder away, and the names that it made."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    for name in [name for name in sys.modules if name == ALIAS or name.startswith(f"{ALIAS}.")]:
        if sys.modules[name].__name__.partition(".")[0] == "tidemill":
            del sys.modules[name]


def _is_real_one_there() -> bool:
    loaded = sys.modules.get(ALIAS)
    if loaded is not None:
        return loaded.__name__ == ALIAS
    return PathFinder.find_spec(ALIAS) is not None
