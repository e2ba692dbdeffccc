"""What a command is to run or deploy: reading a reference, importing what it names, choosing in it."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tidemill import _entrypoint
from tidemill._dataclass import dataclass
from tidemill.cli import errors
from tidemill.cli.methods import RunnableMethod
from tidemill.exception import Error, InvalidError, NotFoundError

if TYPE_CHECKING:
    from tidemill.app import App


@dataclass(frozen=True, slots=True)
class Reference:
    """`file.py::name`, or with `-m` `package.module::name`. `name` may be empty."""

    source: str
    name: str
    is_module: bool
    command: str = "run"  # that was given it

    def __str__(self) -> str:
        return f"{self.source}::{self.name}" if self.name else self.source


def read(text: str, *, is_module: bool, command: str = "run") -> Reference:
    """Return the reference that a text stands for. Raises `InvalidError` with the form that is meant."""
    source, separator, name = text.partition("::")
    if separator and not name:
        raise InvalidError(f"{text} names nothing after ::", hint=f"write {source}::NAME, or {source} alone")
    if not separator and ":" in source:
        meant = "::".join(source.split(":", 1))
        raise InvalidError(f"{text} has a single colon", hint=f"write {meant}")
    if is_module:
        if source.endswith(".py") or "/" in source:
            raise InvalidError(
                f"{source} is a file, not a module", hint=f"leave -m out: tidemill {command} {text}"
            )
        return Reference(source, name, is_module=True, command=command)
    path = Path(source)
    if path.suffix != ".py" and "/" not in source and not path.exists():
        raise InvalidError(
            f"{source} is not a file",
            hint=f"for a module write: tidemill {command} -m {text}; for a file, {source}.py",
        )
    if path.is_dir():
        raise InvalidError(f"{source} is a folder", hint="give a file, or with -m a module in it")
    if "." in path.stem:
        raise InvalidError(f"{path.name} has a dot too many to be imported", hint="rename the file")
    if not path.is_file():
        raise NotFoundError(f"the file {source} does not exist", hint=f"is {Path.cwd()} the right folder?")
    return Reference(source, name, is_module=False, command=command)


def load(reference: Reference) -> ModuleType:
    """Import what a reference names, as `python` would find it. Whatever the import raises is raised."""
    folders = [str(Path.cwd())]
    if not reference.is_module:
        folders.insert(0, str(Path(reference.source).resolve().parent))
    sys.path[:0] = [folder for folder in dict.fromkeys(folders) if folder not in sys.path]
    with _entrypoint.importing(str(reference)):
        return _load_module(reference.source) if reference.is_module else _load_file(Path(reference.source))


def load_or_tell(named: Reference) -> ModuleType | None:
    """Import the user's code; an exception of it is shown, with a hint where we know better."""
    try:
        return load(named)
    except Exception as error:  # whatever the user's code raises is for the user to see
        if isinstance(error, Error) and not errors.is_from_user(error):
            raise
        errors.show_exception(error)
        errors.show(f"{named.source} cannot be imported", _import_hint(error, named))
        return None


def _import_hint(error: Exception, named: Reference) -> str:
    if isinstance(error, Error):
        return error.hint
    if isinstance(error, ImportError) and "no known parent package" in str(error) and not named.is_module:
        dotted = ".".join(Path(named.source).with_suffix("").parts)
        return f"a file of a package is given as a module: tidemill {named.command} -m {dotted}"
    if isinstance(error, SyntaxError):
        return f"this is Python {sys.version_info.major}.{sys.version_info.minor}"
    return ""


def _load_module(name: str) -> ModuleType:
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise NotFoundError(f"there is no module {name}", hint=f"is {Path.cwd()} the folder that it lies in?")
    return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    """Import a file as the module of its name, which is what containers will import it as."""
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@dataclass(frozen=True, slots=True)
class Runnable:
    """Something that can be run, and the app that has to run for it."""

    name: str
    target: Any  # a LocalEntrypoint, a Function or a RunnableMethod
    app: Any
    is_entrypoint: bool
    is_included: bool  # it came with another app

    @property
    def raw(self) -> Any:
        """The Python function itself."""
        return self.target.raw if self.is_entrypoint else self.target.get_raw_f()

    @property
    def rank(self) -> int:
        """Which class of candidates it is in; the lowest that is not empty is chosen from."""
        return 2 * self.is_included + (not self.is_entrypoint)


def find(module: ModuleType, reference: Reference) -> Runnable:
    """Return what a reference names in its module, or the one thing that is meant without a name.

    Raises `InvalidError` or `NotFoundError`, which list what there is.
    """
    candidates = list(_candidates(module))
    if not candidates:
        raise _nothing(module, reference)
    if not reference.name:
        return _only(candidates, reference)
    wanted = [each for each in candidates if _is_named(each, reference.name, module)]
    if not wanted:
        raise NotFoundError(
            f"{reference.source} has nothing to run of the name {reference.name}", hint=_listed(candidates)
        )
    return _only(wanted, reference)


def find_app(module: ModuleType, reference: Reference) -> "App":
    """Return the app that a reference names: by its variable; without a name `app`, or the only one.

    Raises `InvalidError` or `NotFoundError`, which list what there is.
    """
    from tidemill.app import App

    apps: dict[str, App] = _apps(module)
    if not apps:
        raise _nothing(module, reference)
    listed = f"there is {', '.join(apps)}"
    if reference.name:
        named = getattr(module, reference.name, None)
        if not isinstance(named, App):
            raise NotFoundError(f"{reference.source} has no app of the name {reference.name}", hint=listed)
        return named
    if len(apps) == 1:
        return next(iter(apps.values()))
    if "app" not in apps:
        example = f"{'-m ' if reference.is_module else ''}{reference.source}::{next(iter(apps))}"
        raise InvalidError(f"{reference} has {len(apps)} apps: name one, as in {example}", hint=listed)
    return apps["app"]


def _only(candidates: Sequence[Runnable], reference: Reference) -> Runnable:
    best = min(each.rank for each in candidates)
    chosen = [each for each in candidates if each.rank == best]
    if len(chosen) > 1:
        kind = "local entrypoints" if chosen[0].is_entrypoint else "functions"
        raise InvalidError(
            f"{reference} has {len(chosen)} {kind}: name one, as in "
            f"{'-m ' if reference.is_module else ''}{reference.source}::{chosen[0].name}",
            hint=_listed(candidates),
        )
    return chosen[0]


def _listed(candidates: Sequence[Runnable]) -> str:
    return "there is " + ", ".join(sorted({each.name for each in candidates}))


def _candidates(module: ModuleType) -> Iterator[Runnable]:
    """Yield everything that can be run in the apps that a module holds."""
    for app in _apps(module).values():
        for name, entrypoint in app.registered_entrypoints.items():
            included = entrypoint.raw.__module__ != module.__name__
            yield Runnable(name, entrypoint, app, is_entrypoint=True, is_included=included)
        for name, function in app.registered_functions.items():
            included = function.get_raw_f().__module__ != module.__name__
            yield Runnable(name, function, app, is_entrypoint=False, is_included=included)
        for name, cls in app.registered_classes.items():
            declared = cls._here()
            included = declared.user_cls.__module__ != module.__name__
            for method in declared.methods:
                target = RunnableMethod(cls, method)
                yield Runnable(f"{name}.{method}", target, app, is_entrypoint=False, is_included=included)


def _apps(module: ModuleType) -> dict[str, Any]:
    """Return the apps in a module by the name of their variable; each once."""
    from tidemill.app import App

    found: dict[int, tuple[str, App]] = {}
    for name, value in vars(module).items():
        if isinstance(value, App):
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def _is_named(candidate: Runnable, name: str, module: ModuleType) -> bool:
    """Return whether a name means a candidate: its own, with its app's before it, or its app's alone."""
    apps = _apps(module)
    variable = next((variable for variable, app in apps.items() if app is candidate.app), "")
    if name in (candidate.name, f"{variable}.{candidate.name}", variable):
        return True
    try:
        named = inspect.getattr_static(module, name)
    except AttributeError:
        return False
    if isinstance(candidate.target, RunnableMethod):
        return named is candidate.target.cls  # all of its methods: it is enough where there is one
    return named is candidate.target


def _nothing(module: ModuleType, reference: Reference) -> InvalidError:
    if not _apps(module):
        return InvalidError(
            f"{reference.source} has no app",
            hint='make one at the top level of the file: app = tidemill.App("name")',
        )
    return InvalidError(
        f"the app in {reference.source} has nothing to run",
        hint="decorate a function with @app.function() or @app.local_entrypoint()",
    )
